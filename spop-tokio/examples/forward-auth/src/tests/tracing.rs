//! The trace of a request.

use spop_tokio::{
    MessageList,
    spop_core::wire::put_headers,
    testing::{self, TestRequest},
};

use super::router;
use crate::service::{Service, reply};

const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const BEGUN: &str = "00-5391b1f7255d4d4e877e0a84337518df-aef3082840bdc931-00";

/// A request with these headers of a client, and the trace that HAProxy would begin.
fn message(headers: &[(&str, &str)], begun: Option<&str>) -> MessageList {
    let mut list = Vec::new();
    put_headers(&mut list, headers.iter().copied()).unwrap();
    let mut messages = MessageList::new();
    messages
        .message("check-request")
        .arg("method", "GET")
        .arg("uri", "/a")
        .arg("hdrs", list.as_slice())
        .arg("traceparent", begun);
    messages
}

fn traceparent(question: &str) -> Option<&str> {
    question.lines().find_map(|line| line.strip_prefix("traceparent: "))
}

#[tokio::test]
async fn a_question_is_in_the_trace_of_its_request_with_a_span_of_its_own() {
    let service = Service::start(|_| reply(200, "")).await;
    let router = router(&service, &["--forward-headers", "*"]);
    for (header, begun, parent) in [
        (Some(GIVEN), Some(BEGUN), Some(GIVEN)),
        (None, Some(BEGUN), Some(BEGUN)),
        (Some("00-client"), Some(BEGUN), Some(BEGUN)),
        (Some(GIVEN), None, Some(GIVEN)),
        (Some("00-client"), None, None),
        (None, Some("a unique-id"), None),
        (None, None, None),
    ] {
        let headers: Vec<_> = header.map(|value| ("traceparent", value)).into_iter().collect();
        testing::call(&router, TestRequest::of(&message(&headers, begun))).await;
        let question = service.questions().pop().unwrap();
        let Some(parent) = parent else {
            assert_eq!(traceparent(&question), None, "{header:?} {begun:?}");
            continue;
        };
        let own = traceparent(&question).unwrap();
        let [[trace, span], [_, parent_span]] = [own, parent].map(|one| [&one[..35], &one[36..52]]);
        assert_eq!((trace, &own[52..]), (&parent[..35], &parent[52..]));
        assert!(span != parent_span && span != "0000000000000000", "{own}");
    }
}

#[tokio::test]
async fn questions_of_different_traces_are_equal() {
    let service = Service::start(|_| reply(200, "")).await;
    let router = router(&service, &["--forward-headers", "*", "--cache", "2xx=1m"]);
    for begun in [GIVEN, BEGUN] {
        testing::call(&router, TestRequest::of(&message(&[("traceparent", begun)], Some(begun)))).await;
    }
    assert_eq!(service.questions().len(), 1);
}

#[tokio::test]
async fn the_error_of_a_question_that_failed_names_its_trace() {
    let service = Service::start(|_| reply(500, "")).await;
    let outcome =
        testing::call(&router(&service, &[]), TestRequest::of(&message(&[("traceparent", GIVEN)], None)))
            .await;
    let error = outcome.failure().unwrap_or_default();
    assert!(error.contains("4bf92f3577b34da6a3ce929d0e0e4736"), "{error}");
}
