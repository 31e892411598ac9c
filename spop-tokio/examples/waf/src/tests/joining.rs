//! Requests and their responses.

use super::{request, response, waf};

const RULES: &str = "path 3 dots contains ..\nstatus 2 error regex ^5\nresponse.body 1 leak contains x";

#[tokio::test]
async fn a_response_has_the_score_of_its_request_as_well() {
    let waf = waf(RULES, &["--block-at", "5"]);
    let mut message = request();
    message.path = "/..";
    assert_eq!(message.found(&waf).await, "3 dots");
    let sentence = response(500).ask(&waf).await.sentence();
    assert_eq!(
        sentence,
        "set txn response.block=bool:true ; set txn response.detected=bool:true ; set txn response.score=int32:5 ; \
         set txn response.tags=string:error,dots ; set txn response.tag.error=int32:2 ; set txn response.tag.dots=int32:3"
    );
    // It was joined.
    assert_eq!(response(500).found(&waf).await, "2 error");
}

#[tokio::test]
async fn each_response_has_its_own_request() {
    let waf = waf(RULES, &[]);
    let ids = ["a", "b", "c"];
    for id in ids {
        let mut message = request();
        message.id = Some(id);
        message.path = if id == "b" { "/.." } else { "/" };
        message.found(&waf).await;
    }
    for (id, found) in [("c", "0 "), ("b", "3 dots"), ("a", "0 ")] {
        let mut message = response(200);
        message.id = Some(id);
        assert_eq!(message.found(&waf).await, found, "{id}");
    }
}

#[tokio::test]
async fn a_request_without_an_id_or_with_an_endless_one_is_inspected_alone() {
    let waf = waf(RULES, &[]);
    for id in [None, Some(""), Some(include_str!("joining.rs"))] {
        let mut message = request();
        message.path = "/..";
        message.id = id;
        assert_eq!(message.found(&waf).await, "3 dots");
        let mut message = response(500);
        message.id = id;
        assert_eq!(message.found(&waf).await, "2 error");
    }
}

#[tokio::test]
async fn a_request_that_is_refused_awaits_no_response() {
    for (mode, found) in [("block", "2 error"), ("detect", "5 error,dots")] {
        let waf = waf(RULES, &["--block-at", "3", "--mode", mode]);
        let mut message = request();
        message.path = "/..";
        assert_eq!(message.found(&waf).await, "3 dots");
        assert_eq!(response(500).found(&waf).await, found);
    }
}

#[tokio::test]
async fn a_request_is_forgotten_after_a_time() {
    let waf = waf(RULES, &["--keep", "20ms"]);
    let mut message = request();
    message.path = "/..";
    assert_eq!(message.found(&waf).await, "3 dots");
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert_eq!(response(500).found(&waf).await, "2 error");
}
