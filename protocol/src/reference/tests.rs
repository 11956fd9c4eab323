use super::*;

fn said(text: &str) -> String {
    let parts = parse(text).unwrap();
    let parts = parts.iter().map(|p| match p {
        Part::Text(t) => format!("<{t}>"),
        Part::Dollars(n) => format!("<{n} $>"),
        Part::Reference(r) => format!("<{}>", show(&r.path)),
    });
    parts.collect()
}

#[test]
fn a_text_is_taken_apart_at_its_references() {
    for (text, expected) in [
        ("plain $HOME {{ x }}", "<plain $HOME {{ x }}>"),
        ("${{tunnel.port}}", "<tunnel.port>"),
        ("a${{ t.p }}:${{ t.q[0].r }}b", "<a><t.p><:><t.q[0].r><b>"),
        ("$${{ t.p }}", "<2 $><{{ t.p }}>"),
        ("$$${{ t.p }}", "<2 $><t.p>"),
        ("é${{ t.p }}é", "<é><t.p><é>"),
        ("${{ t.p }}${{ t.p }}", "<t.p><t.p>"),
    ] {
        assert_eq!(said(text), expected, "{text}");
    }
}

#[test]
fn what_names_nothing_is_refused() {
    for text in [
        "${{",
        "a ${{ t.p }",
        "${{ }}",
        "${{ a b }}",
        "${{ a..b }}",
        "${{ a[x] }}",
        "${{ .a }}",
    ] {
        assert!(parse(text).is_err(), "{text}");
    }
}
