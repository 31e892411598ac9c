//! Errors of transcripts name the line.

use alloc::string::ToString;

use crate::testing::transcript::{Way, parse, run};

#[test]
fn a_transcript_that_is_wrong_names_its_line() {
    for (line, text) in [
        ("2: nothing more happened", "## x\n* expect Established"),
        ("2: nothing more leaves", "## x\n< ACK fin 5 1"),
        ("4: before this happened: RunMessages", "## x\n* hello\n> NOTIFY fin 5 1 m\n* drain"),
        ("3: there is no ticket", "## x\n* hello\n* answer 5/1"),
        (
            "4: what happened is: RunMessages 5/1 m",
            "## x\n* hello\n> NOTIFY fin 5 1 m\n* expect RunMessages 5/2",
        ),
        (
            "6: what leaves is: ACK fin 5 1",
            "## x\n* hello\n> NOTIFY fin 5 1 m\n* expect RunMessages\n* answer 5/1\n< ACK fin 5 2",
        ),
        (
            "5: at the end of the scenario this frame is left: ACK fin 5 1",
            "## x\n* hello\n> NOTIFY fin 5 1 m\n* expect RunMessages\n* answer 5/1",
        ),
        ("2: it wants read", "## x\n* wants write"),
        ("2: the next timer is hello 5s", "## x\n* timer hello 4s"),
    ] {
        let scenarios = parse(text).unwrap();
        for way in Way::all() {
            let failure = run(&scenarios[0], way).unwrap_err().to_string();
            assert!(failure.starts_with(line), "{failure}, {way}");
        }
    }
    for (line, text) in [
        (1, "> NOTIFY fin 5 1 m"),
        (2, "## x\nhello"),
        (2, "## x\n* dance"),
        (3, "## x\n\n> NOTIFY fin 5 1 ;"),
    ] {
        assert_eq!(parse(text).unwrap_err().line, line, "{text}");
    }
}
