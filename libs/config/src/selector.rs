//! Which of two rules is for fewer servers, and whether a server could fall under both.

use headroom_model::policy::Selector;

/// How specific a selector is: more conditions before fewer, then fewer stars. Larger is more specific.
pub(crate) fn specificity(selector: &Selector) -> (usize, std::cmp::Reverse<usize>) {
    let attributes = selector.attributes.iter().map(|(_, pattern)| pattern.as_str());
    let patterns = selector.cell.as_deref().into_iter().chain(selector.pool.as_deref()).chain(attributes);
    let (mut conditions, mut stars) = (0, 0);
    for pattern in patterns {
        conditions += 1;
        stars += pattern.matches('*').count();
    }
    (conditions, std::cmp::Reverse(stars))
}

/// Whether some server could match both.
pub(crate) fn overlap(a: &Selector, b: &Selector) -> bool {
    let both = |a: Option<&String>, b: Option<&String>| match (a, b) {
        (Some(a), Some(b)) => patterns_meet(a, b),
        _ => true,
    };
    both(a.cell.as_ref(), b.cell.as_ref())
        && both(a.pool.as_ref(), b.pool.as_ref())
        && a.attributes.iter().all(|(key, pattern)| {
            b.attributes.iter().filter(|(other, _)| other == key).all(|(_, other)| patterns_meet(pattern, other))
        })
}

/// Whether some text matches both patterns: walks all pairs of positions that a common text could reach.
fn patterns_meet(a: &str, b: &str) -> bool {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    // meets[j]: whether a[i..] and b[j..] have a text in common; filled from the ends.
    let mut below: Vec<bool> = Vec::new();
    for i in (0..=a.len()).rev() {
        let mut row = vec![false; b.len() + 1];
        for j in (0..=b.len()).rev() {
            let (x, y) = (a.get(i), b.get(j));
            let down = |below: &[bool]| below.get(j).copied().unwrap_or(false);
            row[j] = match (x, y) {
                (None, None) => true,
                // A star takes nothing, or one more character of the other side.
                (Some('*'), _) if down(&below) => true,
                (_, Some('*')) if row.get(j + 1).copied().unwrap_or(false) => true,
                (Some('*'), Some(_)) => row[j + 1],
                (Some(_), Some('*')) => down(&below),
                (Some(x), Some(y)) => x == y && below.get(j + 1).copied().unwrap_or(false),
                _ => false,
            };
        }
        below = row;
    }
    below[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_meet_where_a_text_fits_both() {
        for (a, b, expected) in [
            ("web", "web", true),
            ("web", "db", false),
            ("web-*", "*-eu", true),
            ("web-*", "db-*", false),
            ("*", "", true),
            ("", "", true),
            ("", "x", false),
            ("a*b", "*c", false),
            ("a*", "*b*c", true),
            ("**", "x", true),
            ("a*a", "a", false),
            ("a*a", "aa", true),
        ] {
            assert_eq!(patterns_meet(a, b), expected, "{a} {b}");
            assert_eq!(patterns_meet(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn more_conditions_then_fewer_stars_are_more_specific() {
        let of = |cell: Option<&str>, pool: Option<&str>| {
            specificity(&Selector { cell: cell.map(Into::into), pool: pool.map(Into::into), attributes: vec![] })
        };
        assert!(of(Some("eu-*"), Some("db-*")) > of(Some("eu-1"), None));
        assert!(of(Some("eu-1"), None) > of(Some("eu-*"), None));
        assert_eq!(of(Some("eu-*"), None), of(None, Some("db-*")));
    }
}
