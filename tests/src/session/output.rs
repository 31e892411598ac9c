//! Output that is compared by its form where it differs from run to run.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex_lite::Regex;

/// A line of a page that stands for any lines.
const ELISION: &str = "…";

/// What differs from run to run, and what stands for it.
const FORMS: &[(&str, &str)] = &[
    ("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID"),
    (r"\b[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]+", "TIME"),
    (r"\b[0-9]+(\.[0-9]+)? (µs|ms|s)\b", "DURATION"),
    // Ports that the system has chosen: those of the page have been put back.
    (r"127\.0\.0\.1:[3-6][0-9]{4}\b", "127.0.0.1:PORT"),
    // Milliseconds in JSON, which has no zeros at the end of a number, and in a table.
    (r#"ms":[0-9]+(\.[0-9]+)?"#, r#"ms":MILLIS"#),
    (r"\b[0-9]+\.[0-9]{3}\b", "MILLIS"),
    (r"HAProxy [0-9]\.[0-9]+\.[0-9]+", "HAProxy VERSION"),
    // The width of a column depends on what is in it.
    (" {2,}", "  "),
];

/// What a measurement is made of. Lines that have the same form then count as one: a histogram has as many as it needs.
const NUMBERS: &[(&str, &str)] =
    &[("[0-9]+(\\.[0-9]+)?", "N"), ("N (µs|ms|s)\\b", "N"), (" *█+", ""), (" +", " ")];

static FORM: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| compile(FORMS));
static NUMBER: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| compile(NUMBERS));

fn compile(forms: &[(&str, &'static str)]) -> Vec<(Regex, &'static str)> {
    // The tests compile each.
    forms.iter().filter_map(|(regex, name)| Some((Regex::new(regex).ok()?, *name))).collect()
}

/// How many lines of `actual`, from its first on, are what the page expects; `None` if they are something else, or too few.
pub fn matches(expected: &[String], actual: &[String], numbers: bool) -> Option<usize> {
    let mut expected: Vec<_> = expected.iter().map(|line| form(line, numbers)).collect();
    let mut forms: Vec<_> = actual.iter().map(|line| form(line, numbers)).collect();
    if !numbers {
        return prefix(&expected, &forms);
    }
    expected.dedup();
    forms.dedup();
    prefix(&expected, &forms).filter(|count| *count == forms.len()).map(|_| actual.len())
}

fn prefix(expected: &[Cow<'_, str>], actual: &[Cow<'_, str>]) -> Option<usize> {
    let Some((first, rest)) = expected.split_first() else { return Some(0) };
    if first.trim() != ELISION {
        let (line, lines) = actual.split_first()?;
        return (line == first).then(|| prefix(rest, lines))?.map(|count| count + 1);
    }
    if rest.is_empty() {
        return Some(actual.len());
    }
    (0..=actual.len()).find_map(|skipped| Some(skipped + prefix(rest, actual.get(skipped..)?)?))
}

fn form(line: &str, numbers: bool) -> Cow<'_, str> {
    let mut line = Cow::Borrowed(line.trim_end());
    for (regex, name) in FORM.iter().chain(NUMBER.iter().take(if numbers { usize::MAX } else { 0 })) {
        if regex.is_match(&line) {
            line = Cow::Owned(regex.replace_all(&line, *name).into_owned());
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn all_forms_are_expressions() {
        assert_eq!((FORM.len(), NUMBER.len()), (FORMS.len(), NUMBERS.len()));
    }

    #[test]
    fn what_differs_from_run_to_run_is_compared_by_its_form() {
        let same = |a: &str, b: &str, numbers| matches(&lines(a), &lines(b), numbers) == Some(1);
        assert!(same("in 0.140 ms  ok", "in 12.1 µs       ok", false));
        assert!(same("19:06:03.799067 #1 x", "01:06:03.1 #1 x", false));
        assert!(same("from 127.0.0.1:37596", "from 127.0.0.1:51000", false));
        assert!(!same("from 127.0.0.1:12345", "from 127.0.0.1:51000", false));
        assert!(same(r#"{"max_ms":51.423}"#, r#"{"max_ms":51.4}"#, false));
        assert!(!same("score 42", "score 43", false));
        assert!(!same("in 1 ms  ok", "in 1 ms  no", false));
        assert!(same("  50 %  216 µs  ███", " 99 %     1.2 ms █", true));
        assert!(!same("50 % slow", "50 % fast", true));
        assert_eq!(matches(&lines("1 ms  7 █\nx"), &lines("1 ms  7 █\n2 ms  900 ██\nx"), true), Some(3));
        assert_eq!(matches(&lines("1 ms  7 █\nx"), &lines("1 ms  7 █\ny"), true), None);
    }

    #[test]
    fn an_elision_stands_for_any_lines() {
        let count = |expected: &str, actual: &str| matches(&lines(expected), &lines(actual), false);
        assert_eq!(count("a\n…\nd", "a\nb\nc\nd\ne"), Some(4));
        assert_eq!(count("…", "a\nb"), Some(2));
        assert_eq!(count("…\nd", "d"), Some(1));
        assert_eq!(count("a\n…\nd", "a\nb\nc"), None);
        assert_eq!(count("a\nb", "a"), None);
        assert_eq!(count("", "a"), Some(0));
    }
}
