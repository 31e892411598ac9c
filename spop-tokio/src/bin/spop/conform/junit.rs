//! The report in the format of `JUnit`, which continuous integration reads.

use std::{fs, path::Path};

use quick_junit::{NonSuccessKind, Report as Document, TestCase, TestCaseStatus, TestSuite};

use super::report::{Finished, Report, Verdict};
use crate::exit::Failure;

/// Writes the report to a file. A suite is a topic; a case that is not applicable is skipped.
pub(super) fn write(path: &Path, report: &Report) -> Result<(), Failure> {
    let mut document = Document::new(format!("spop conform {}", report.address));
    for cases in report.cases.chunk_by(|a, b| a.topic == b.topic) {
        let mut suite = TestSuite::new(cases.first().map_or("", |case| case.topic));
        suite.add_test_cases(cases.iter().map(case));
        document.add_test_suite(suite);
    }
    let text = document.to_string().map_err(Failure::io)?;
    // The schema of Jenkins has this count for suites only. It comes first in the text: names are escaped.
    let text = text.replacen(&format!(" skipped=\"{}\"", document.skipped), "", 1);
    fs::write(path, text).map_err(|error| Failure::io_of(path.display(), &error))
}

fn case(case: &Finished) -> TestCase {
    let mut status = match &case.verdict {
        Verdict::Passed => TestCaseStatus::success(),
        Verdict::Failed(_) => TestCaseStatus::non_success(NonSuccessKind::Failure),
        Verdict::Dead { .. } | Verdict::NotRun => TestCaseStatus::non_success(NonSuccessKind::Error),
        Verdict::NotApplicable(_) => TestCaseStatus::skipped(),
    };
    if let Some(reason) = case.verdict.reason() {
        status.set_message(reason);
    }
    if case.verdict.is_failed() {
        status.set_type(case.level.name());
        status.set_description(case.details().join("\n"));
    }
    let mut test = TestCase::new(case.title.clone(), status);
    test.set_classname(format!("{}.{}", case.level.name(), case.topic));
    test.set_time(case.took);
    test
}
