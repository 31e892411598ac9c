//! What rules look at, and what is answered.

use super::{request, response, waf};

#[tokio::test]
async fn the_score_decides() {
    let rules = "path 3 dots contains ..\npath 2 admin contains admin\nquery 4 dots contains ..";
    let waf = waf(rules, &["--block-at", "5"]);
    let mut message = request();
    assert_eq!(
        message.ask(&waf).await.sentence(),
        "set txn request.block=bool:false ; set txn request.detected=bool:false ; set txn request.score=int32:0"
    );
    message.path = "/../x";
    message.query = Some(b"a=..");
    assert_eq!(
        message.ask(&waf).await.sentence(),
        "set txn request.block=bool:true ; set txn request.detected=bool:true ; set txn request.score=int32:7 ; \
         set txn request.tags=string:dots ; set txn request.tag.dots=int32:7"
    );
    message.path = "/admin/..";
    message.query = None;
    assert_eq!(
        message.ask(&waf).await.sentence(),
        "set txn request.block=bool:true ; set txn request.detected=bool:true ; set txn request.score=int32:5 ; \
         set txn request.tags=string:dots,admin ; set txn request.tag.dots=int32:3 ; set txn request.tag.admin=int32:2"
    );
}

#[tokio::test]
async fn in_detect_mode_nothing_is_refused() {
    let waf = waf("path 9 a contains a", &["--mode", "detect"]);
    let mut message = request();
    message.path = "/a";
    let sentence = message.ask(&waf).await.sentence();
    assert!(
        sentence.starts_with("set txn request.block=bool:false ; set txn request.detected=bool:true"),
        "{sentence}"
    );
}

#[tokio::test]
async fn each_part_has_rules_of_its_own() {
    let rules = "method 1 m regex ^GET$\npath 2 p contains x\nquery 4 q contains x\nheader 8 h contains x\n\
                 header:Cookie 16 c contains x\nbody 32 b contains x\nstatus 1 s regex ^5\n\
                 response.header 2 rh contains x\nresponse.header:server 4 srv contains x\nresponse.body 8 rb contains x";
    let waf = waf(rules, &[]);
    let mut message = request();
    assert_eq!(message.found(&waf).await, "1 m");
    message.path = "/x";
    assert_eq!(message.found(&waf).await, "3 m,p");
    message.path = "/";
    message.query = Some(b"x");
    assert_eq!(message.found(&waf).await, "5 m,q");
    message.query = None;
    message.headers = vec![("accept", b"x"), ("accept", b"x"), ("x", b"")];
    assert_eq!(message.found(&waf).await, "9 m,h");
    message.headers = vec![("cookie", b"a"), ("cookie", b"x")];
    assert_eq!(message.found(&waf).await, "25 m,h,c");
    message.headers.clear();
    message.body = b"x".to_vec();
    assert_eq!(message.found(&waf).await, "33 m,b");
    // Not of a request that was seen.
    let unknown = |mut message: super::Message| {
        message.id = Some("id-2");
        message
    };
    assert_eq!(unknown(response(503)).found(&waf).await, "1 s");
    let mut message = unknown(response(200));
    message.headers = vec![("server", b"x")];
    assert_eq!(message.found(&waf).await, "6 rh,srv");
    message.headers.clear();
    message.body = b"x".to_vec();
    assert_eq!(message.found(&waf).await, "8 rb");
}

#[tokio::test]
async fn text_is_matched_as_it_came_and_as_it_is_read() {
    let waf = waf(
        "path 1 p contains ../\nquery 1 q contains a b\nquery 1 raw contains %20\nbody 1 b contains <a b",
        &[],
    );
    let mut message = request();
    for (path, found) in [("/%2e%2E%2f", "1 p"), ("/..%2f", "1 p"), ("/..", "0 "), ("/%2e%2e%zz/", "0 ")] {
        message.path = path;
        assert_eq!(message.found(&waf).await, found, "{path}");
    }
    for (query, found) in [("a+b", "1 q"), ("a%20b", "2 q,raw"), ("a%2bb", "0 "), ("a b", "1 q")] {
        message.query = Some(query.as_bytes());
        assert_eq!(message.found(&waf).await, found, "{query}");
    }
    message.query = None;
    for (body, found) in [("x=%3ca+b", "1 b"), ("<a b", "1 b"), ("<a+b", "1 b"), ("%3Ca%2Bb", "0 ")] {
        message.body = body.into();
        assert_eq!(message.found(&waf).await, found, "{body}");
    }
}

#[tokio::test]
async fn bytes_that_are_no_text_hide_nothing() {
    let waf = waf("query 1 q regex (?i)UNION.SELECT\nheader 1 h contains jndi", &[]);
    let mut message = request();
    message.query = Some(b"\xff\xfeunion\xffselect\x00");
    message.headers = vec![("x", b"\xffjndi\x80")];
    assert_eq!(message.found(&waf).await, "2 q,h");
}

#[tokio::test]
async fn a_body_that_was_cut_can_score() {
    let waf = waf("body 2 cut is-cut\nresponse.body 3 rcut is-cut", &[]);
    let mut message = request();
    message.body = b"abc".to_vec();
    for (size, found) in [(3, "0 "), (4, "2 cut"), (0, "0 "), (-1, "0 "), (i64::MAX, "2 cut")] {
        message.size = size;
        assert_eq!(message.found(&waf).await, found, "{size}");
    }
    let mut message = response(200);
    message.id = None;
    message.size = 1;
    assert_eq!(message.found(&waf).await, "3 rcut");
}

#[tokio::test]
async fn an_answer_that_is_too_long_for_haproxy_leaves_tags_out() {
    let rules = |tags: usize| -> String {
        let line = |tag| format!("path 1 a_tag_with_a_rather_long_name_{tag} contains a\n");
        (0..tags).map(line).collect::<Vec<_>>().concat()
    };
    for (tags, each, list) in [(10, true, true), (400, false, true), (900, false, false)] {
        let waf = waf(&rules(tags), &[]);
        let mut message = request();
        message.path = "/a";
        let outcome = message.ask(&waf).await;
        assert_eq!(outcome.failure(), None, "{tags}");
        let sentence = outcome.sentence();
        assert!(sentence.starts_with("set txn request.block=bool:true ;"), "{sentence}");
        assert!(sentence.contains(&format!("request.score=int32:{tags}")), "{sentence}");
        assert_eq!((sentence.contains("request.tag."), sentence.contains("request.tags=")), (each, list));
    }
}

#[tokio::test]
async fn the_shipped_rules_find_simple_variants() {
    let waf = waf(include_str!("../../rules.txt"), &[]);
    let mut message = request();
    for path in [
        "/../x",
        "/%2e%2e/x",
        "/a/..",
        "/..;/x",
        "/..%5cwin.ini",
        "/..\\x",
        "/%252e%252e/x",
        "/%c0%ae%c0%ae/x",
        "/${jndi:x}",
        "/%24%7bjndi:x}",
        "/${${lower:j}ndi:x}",
    ] {
        message.path = path;
        let found = message.found(&waf).await;
        assert!(found.starts_with("5 "), "{path}: {found}");
    }
    for path in ["/", "/a..b/c", "/...", "/..a", "/100%25", "/a.b", "/${a}/{jndi}"] {
        message.path = path;
        assert_eq!(message.found(&waf).await, "0 ", "{path}");
    }
    message.path = "/";
    let far = format!("1 union{}select", " ".repeat(90));
    let texts = ["a=1%0aunion%0aselect", "a=1+union%0b%0c%0d%0a/*23 characters between*/select", &far];
    for text in texts.iter().copied().chain(["a=${jndi:x}", "a=%24%7Bjndi:x}"]) {
        message.query = Some(text.to_owned().leak().as_bytes());
        let found = message.found(&waf).await;
        assert!(found.starts_with("5 "), "{text}: {found}");
        message.query = None;
        message.body = text.into();
        let found = message.found(&waf).await;
        assert!(found.starts_with("5 "), "body {text}: {found}");
        message.body.clear();
    }
    for value in ["${jndi:x}", "%24%7bjndi:x", "${${lower:j}ndi:x}"] {
        message.headers = vec![("cookie", value.as_bytes())];
        assert_eq!(message.found(&waf).await, "5 jndi", "{value}");
    }
}

#[tokio::test]
async fn a_wrong_configuration_is_a_failure_with_the_answer_of_the_policy() {
    use spop_tokio::testing::{self, TestRequest};

    for (args, block) in
        [([].as_slice(), true), (&["--on-failure", "pass"], false), (&["--mode", "detect"], false)]
    {
        let waf = waf("path 1 a contains a", args);
        for (message, name) in [("check-request", "request"), ("check-response", "response")] {
            let outcome = testing::call(&waf.handler(), TestRequest::new(message)).await;
            assert_eq!(
                outcome.sentence(),
                format!("set txn {name}.block=bool:{block} ; set txn {name}.failed=bool:true")
            );
        }
    }
}

#[test]
fn findings_have_the_lines_of_their_rules_in_the_file() {
    use spop_tokio::testing::TestRequest;

    use crate::{message::Message, rules::Rules};

    let rules = Rules::parse(
        b"# a comment\npath 1 a contains a\nstatus 1 s regex 5\n\npath 1 a contains b\npath 1 c contains c\n",
    );
    let rules = rules.unwrap();
    let mut message = request();
    message.path = "/ab";
    let seen = TestRequest::of(&message.list()).into();
    let of_request = Message::of_request(&seen).unwrap().inspect(&rules);
    assert_eq!(of_request.rules(), [2, 5]);
    let seen = TestRequest::of(&response(500).list()).into();
    let mut of_response = Message::of_response(&seen).unwrap().inspect(&rules);
    of_response.join(&of_request);
    assert_eq!(of_response.rules(), [3, 2, 5]);
}
