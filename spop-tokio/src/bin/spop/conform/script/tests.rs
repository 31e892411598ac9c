//! The cases, and what is no case.

use std::collections::HashSet;

use super::*;

#[test]
fn all_cases_parse_and_have_titles_of_their_own_and_references() {
    for message in ["spop-conform text=string:hello", "a", "check-ip ip=ipv4:203.0.113.7 ; b c=null"] {
        let cases = all(message).unwrap();
        assert!(cases.len() > 80, "{}", cases.len());
        let titles: HashSet<_> = cases.iter().map(|case| &case.title).collect();
        assert_eq!(titles.len(), cases.len(), "titles repeat");
        for Case { title, reference, steps, cut, .. } in &cases {
            let known = reference.split(", ").all(|part| {
                part.starts_with("3.") || part.starts_with("HAProxy 2.6") || part.starts_with("HAProxy 3.")
            });
            assert!(known, "{title}: {reference}");
            assert!(steps.iter().any(|step| !matches!(step, Step::Needs(_))), "{title}");
            assert!(!cut || steps.iter().any(|step| matches!(step, Step::Send { .. })), "{title}");
        }
    }
    for level in Level::ALL {
        assert!(all("a").unwrap().iter().any(|case| case.level == level));
    }
}

#[test]
fn what_is_no_case_is_an_error() {
    let rule = "## T\n* must 3.2\n";
    for (text, error) in [
        ("> ACK fin 1 1".to_owned(), "t.spop:1: > ACK fin 1 1: `## TITLE` comes first"),
        ("## T\n> ACK fin 1 1\n".to_owned(), "T: no level"),
        (rule.to_owned(), "T: no steps"),
        (format!("{rule}* must 3.3"), "t.spop:3: * must 3.3: one level, with a reference"),
        (
            format!("{rule}> NOTIFY fin 1"),
            "t.spop:3: > NOTIFY fin 1: column 13: expected a frame-id, found the end of the line",
        ),
        (format!("{rule}* haproxy"), "t.spop:3: * haproxy: one text"),
        (format!("{rule}* fly"), "t.spop:3: * fly: no such directive"),
        (format!("{rule}or end"), "t.spop:3: or end: it follows `<` or `* end`"),
        (format!("{rule}* needs wings"), "t.spop:3: * needs wings: there is no capability `wings`"),
        (format!("{rule}* times x"), "t.spop:3: * times x: `x` is no number that fits"),
        (
            format!("{rule}nonsense"),
            "t.spop:3: nonsense: a line begins with `>`, `<`, `<?`, `or`, `*` or `#`",
        ),
    ] {
        assert_eq!(parse("t", &text, "a", &mut Vec::new()).unwrap_err(), error, "{text}");
    }
}

#[test]
fn lines_that_follow_each_other_are_one_write_and_one_expectation() {
    let text = "## T\n* must 3.2\n* times 2\n> NOTIFY fin 1 1 {message}\n> hex:00*3\n< ACK fin 1 1 *\n< ACK fin 2 1 *\nor end\n";
    let mut cases = Vec::new();
    parse("t", text, "a", &mut cases).unwrap();
    let [Step::Send { lines, bytes }, Step::Expect(expected)] = &cases[0].steps[..] else {
        panic!("{cases:?}")
    };
    assert_eq!(lines, &["> NOTIFY fin 1 1 a   (2 times)", "> hex:00*3"]);
    assert_eq!(bytes.len(), 2 * 14 + 3);
    assert_eq!((expected.frames.len(), expected.or.len()), (2, 1));
}
