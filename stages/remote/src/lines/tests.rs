use super::*;

#[tokio::test]
async fn long_lines_are_cut_and_invalid_bytes_and_an_unfinished_end_are_shown() {
    let mut input = vec![b'x'; MAX_SHOWN + 70_000];
    input.extend_from_slice(b"\n\n\xff!\nlast line");
    let mut lines = Lines::new(input.as_slice());
    let cut = lines.next().await.unwrap();
    assert!(cut.starts_with("xxx") && cut.ends_with("x… (70000 bytes more)"));
    for expected in ["", "\u{fffd}!", "last line"] {
        assert_eq!(lines.next().await.as_deref(), Some(expected));
    }
    assert_eq!(lines.next().await, None);
}
