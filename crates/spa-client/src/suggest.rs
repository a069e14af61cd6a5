//! "Did you mean": the nearest of the known words.

/// The known word nearest to `word`, where it is near enough to be a misspelling of it.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Edits (insert, delete, replace, swap of neighbours; ignoring case) that turn one word into the other.
fn distance(left: &str, right: &str) -> usize {
    let [left, right] = [left, right].map(|word| word.to_lowercase().chars().collect::<Vec<_>>());
    let mut before: Vec<usize> = Vec::new();
    let mut previous: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut current = vec![i + 1];
        for (j, b) in right.iter().enumerate() {
            let replace = previous[j] + usize::from(a != b);
            let mut best = replace.min(previous[j + 1] + 1).min(current[j] + 1);
            if i > 0 && j > 0 && *a == right[j - 1] && left[i - 1] == *b {
                best = best.min(before[j - 1] + 1);
            }
            current.push(best);
        }
        before = std::mem::replace(&mut previous, current);
    }
    previous[right.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn near_words_are_suggested_and_far_ones_are_not() {
        let known = ["address", "port", "server-key", "key-file"];
        for (word, meant) in [
            ("adress", Some("address")),
            ("prot", Some("port")),
            ("keyfile", Some("key-file")),
            ("Port", Some("port")),
            ("server_key", Some("server-key")),
            ("psk", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), meant, "{word}");
        }
    }
}
