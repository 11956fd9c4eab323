use std::process::Command;

use super::*;

/// A value that does harm as text of a script.
const NASTY: &str = "a  b\n\"'`$(touch /tmp/harm)`;$HOME \\ * # &";

fn run(text: &str) -> String {
    let script = script(text).unwrap();
    let variables = script.variables.keys().map(|name| (name, NASTY));
    let output = Command::new("sh")
        .args(["-c", &script.text])
        .envs(variables)
        .output();
    let output = output.unwrap();
    assert!(output.status.success(), "{text}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_value_is_one_word_and_the_same_in_every_context() {
    for text in [
        "printf '%s' ${{ a.b }}",
        "printf '%s' \"${{ a.b }}\"",
        "# it's a comment\nprintf '%s' ${{ a.b }}",
        "printf '%s' \"$(printf '%s' \"${{ a.b }}\")\"",
        "printf '%s' \"$(printf '%s' ${{ a.b }})\"",
        "x=${{ a.b }}; printf '%s' \"$x\"",
        "cat <<EOF | head -c -1\nit's no quote\n${{ a.b }}\nEOF\n",
        "printf '%s' $(: 'x' # it's\n)${{ a.b }}",
        "printf '%s' \"`printf '%s' \\\"${ref_a_b}\\\"`\"; : ${{ a.b }}",
    ] {
        let expected = text
            .contains("no quote")
            .then(|| format!("it's no quote\n{NASTY}"));
        assert_eq!(run(text), expected.as_deref().unwrap_or(NASTY), "{text}");
    }
    assert_eq!(
        run("printf %s pre${{ a.b }}post"),
        format!("pre{NASTY}post")
    );
    assert_eq!(run("printf %s $$${{ a.b }}"), format!("${NASTY}"));
    assert_eq!(run("printf '%s' '$${{ a.b }}'"), "${{ a.b }}");
}

#[test]
fn where_the_shell_reads_no_variables_or_runs_a_text_a_reference_is_refused() {
    for text in [
        "echo '${{ a.b }}'",
        "echo $'${{ a.b }}'",
        "echo \\${{ a.b }}",
        "cat <<'EOF'\n${{ a.b }}\nEOF\n",
        "cat <<- \\EOF\n${{ a.b }}\nEOF\n",
        "bash -c \"echo ${{ a.b }}\"",
        "x=$(env /bin/sh -ec \"\necho ${{ a.b }}\")",
        "eval echo ${{ a.b }}",
    ] {
        let error = script(text).unwrap_err();
        assert_eq!(&text[error.range], "${{ a.b }}");
    }
}

#[test]
fn each_reference_has_a_variable_of_its_own() {
    let script = script("echo ${{ a.b }} ${{ a-b }} ${{a.b}} ${{ a.b }}").unwrap();
    assert_eq!(script.variables.len(), 3, "{script:?}");
}

#[test]
fn a_word_of_a_command_is_a_script_an_argument_or_refused() {
    let (script, argument, refused) = (Ok(true), Ok(false), Err(()));
    for (words, expected) in [
        ("sh|-c|R x", script),
        ("/bin/bash|-ec|R", script),
        ("bash|-eo|pipefail|-c|x R", script),
        ("bash|-euco|pipefail|x R", script),
        ("bash|--norc|--rcfile|f|-c|x R", script),
        ("sh|-c|-e|x R", script),
        ("sh|-c|--|x R", script),
        ("sh|-c|f \"$1\"|sh|x R", argument),
        ("bash|file|x R", argument),
        ("bash|--|R", argument),
        ("R/bin/x|y", argument),
        ("curl|http://R/", argument),
        ("ping|-c|R", argument),
        ("timeout|5|sh|-c|f \"$1\"|sh|x R", argument),
        ("env|sh|-c|x R", refused),
        ("timeout|5|/bin/bash|-o|pipefail|-c|R", refused),
        ("sh|-c|\"$0\" \"$@\"|bash|-c|x R", refused),
        ("sh|-R|x", refused),
        ("bash|R|x", refused),
        ("bash|-o|R|-c|x", refused),
        ("env|-S|sh -c \"x R\"", refused),
        ("python3|-c|x(R)", refused),
        ("$SHELL|-c|x R", refused),
    ] {
        let words = words.replace('R', "${{ a.b }}");
        let words: Vec<&str> = words.split('|').collect();
        let at = words.iter().position(|w| w.contains("${{")).unwrap();
        let found = in_command(&words, at).map(|s| s.is_some());
        assert_eq!(found.map_err(drop), expected, "{words:?}");
    }
}

proptest::proptest! {
    #[test]
    fn no_script_makes_it_panic(text in "[$a{}.'\"`()<#\\\\\n é-]{0,40}(\\$\\{\\{ a.b \\}\\})?['\")a]{0,3}") {
        let _ = script(&text);
    }
}
