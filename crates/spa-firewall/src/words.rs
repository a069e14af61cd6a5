//! Splits a line of `iptables-save` into words, as both variants write it.

use std::borrow::Cow;

/// As many words as a grant has, so that reading thousands of them allocates little.
const TYPICAL: usize = 24;

/// The words of `line`, or `None` if its quoting is not what iptables writes: a word is bare, or wholly within double
/// quotes, where a backslash takes the next character as it is.
pub fn split(line: &str) -> Option<Vec<Cow<'_, str>>> {
    let mut words = Vec::with_capacity(TYPICAL);
    let mut rest = line.trim_matches(' ');
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_word(quoted)?,
            None => bare_word(rest)?,
        };
        if !after.is_empty() && !after.starts_with(' ') {
            return None;
        }
        words.push(word);
        rest = after.trim_start_matches(' ');
    }
    Some(words)
}

fn bare_word(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let end = text.find(' ').unwrap_or(text.len());
    let (word, after) = text.split_at(end);
    (!word.contains(['"', '\\'])).then_some((Cow::Borrowed(word), after))
}

fn quoted_word(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let end = text.find(['"', '\\'])?;
    if text[end..].starts_with('"') {
        return Some((Cow::Borrowed(&text[..end]), &text[end + 1..]));
    }
    let mut word = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((Cow::Owned(word), &text[at + 1..])),
            '\\' => word.push(characters.next()?.1),
            other => word.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::split;

    fn words(line: &str) -> Vec<String> {
        split(line).expect("the line is well quoted").into_iter().map(|word| word.into_owned()).collect()
    }

    #[test]
    fn bare_and_quoted() {
        assert_eq!(words("-A  SPA -j DROP "), ["-A", "SPA", "-j", "DROP"]);
        assert_eq!(
            words(r#"--comment "we \"quote\" \\ this\'s" -j X"#),
            ["--comment", r#"we "quote" \ this's"#, "-j", "X"]
        );
        assert_eq!(words(r#"--comment """#), ["--comment", ""]);
        assert!(words("").is_empty());
    }

    #[test]
    fn what_iptables_never_writes_is_refused() {
        for line in [r#"a"b c"#, r#""open"#, r#""a"b"#, r#""a\"#, r"a\b"] {
            assert_eq!(split(line), None, "{line}");
        }
    }
}
