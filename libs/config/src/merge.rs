//! Laying one tree over another: what the upper one says wins, value by value.

use crate::problem::Problem;
use crate::tree::{Tree, Value};
use headroom_expr::nearest;

/// Lays `upper` over `lower`. Maps merge, everything else replaces. Under the paths for which `removes` holds, a null
/// removes the entry instead of becoming its value.
pub(crate) fn lay_over(
    lower: &mut Tree,
    upper: Tree,
    path: &mut Vec<String>,
    removes: &impl Fn(&[String]) -> bool,
    problems: &mut Vec<Problem>,
) {
    let Tree { value, origin, is_raw } = upper;
    match (&mut lower.value, value) {
        (Value::Map(below), Value::Map(above)) => {
            for entry in above {
                path.push(entry.key.clone());
                let at = below.iter().position(|known| known.key == entry.key);
                if matches!(entry.value.value, Value::Null) && removes(path) {
                    match at {
                        Some(at) => drop(below.remove(at)),
                        None => {
                            let near = nearest(&entry.key, below.iter().map(|known| known.key.as_str()));
                            problems.push(
                                Problem::new(&entry.key_origin, format!("there is no `{}` to remove", entry.key))
                                    .of_path(path)
                                    .suggesting(near.map(|near| format!("did you mean `{near}`?"))),
                            );
                        }
                    }
                } else if let Some(at) = at {
                    below[at].key_origin = entry.key_origin;
                    lay_over(&mut below[at].value, entry.value, path, removes, problems);
                } else {
                    below.push(entry);
                }
                path.pop();
            }
            lower.origin = origin;
        }
        (_, value) => *lower = Tree { value, origin, is_raw },
    }
}
