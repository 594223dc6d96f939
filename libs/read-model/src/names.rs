//! From any name of a server to its row, and the order of rows by name.
//!
//! A cell of a million servers has several million names, and a server that joins must not cost the writer a second.
//! So the index of a table is a *base*, built once, and an *overlay* of the rows that differ from the table the base
//! was built for; when the overlay grows beyond a share of the rows, the next base is built. An entry of the base may
//! thus be out of date, and every hit is checked against the present table: eight bytes an entry, no name stored twice.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::{Arc, OnceLock};

use hashbrown::HashTable;
use headroom_model::snapshot::ServerTable;
use rustc_hash::{FxBuildHasher, FxHashMap};

/// The overlay may hold one row in this many; beyond, a new base is cheaper than slower look-ups.
const OVERLAY_ROWS_PER_BASE_ROW: usize = 20;

/// Which servers of a cell answer to a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NameMatch {
    /// None.
    None,
    /// One: its row.
    Row(u32),
    /// Several share the alias, which is therefore no answer: their rows, ascending. A server's own name is never
    /// shared, it wins over aliases.
    Shared(Vec<u32>),
}

/// A name of a row: 0 is the server's own, `k` its alias `k - 1`.
#[derive(Clone, Copy)]
struct Entry {
    row: u32,
    name: u32,
}

/// The index of the table it was built for.
struct Base {
    table: Arc<ServerTable>,
    entries: HashTable<Entry>,
    /// Aliases that several rows have.
    shared: BTreeMap<Arc<str>, Vec<u32>>,
}

/// Names of a table of servers.
pub struct Names {
    table: Arc<ServerTable>,
    base: Arc<Base>,
    /// Rows whose names differ from those in the base's table, ascending.
    differing: Vec<u32>,
    /// Their names.
    overlay: FxHashMap<Arc<str>, Vec<u32>>,
    order: OnceLock<Arc<[u32]>>,
}

impl Names {
    /// The index of `table`, made from the previous one where that is cheaper.
    pub fn build(table: &Arc<ServerTable>, previous: Option<&Self>) -> Self {
        let Some(previous) = previous else { return Self::from_scratch(table) };
        let differing = differing_rows(&previous.base.table, table);
        if differing.len() > table.server.len() / OVERLAY_ROWS_PER_BASE_ROW + 16 {
            return Self::from_scratch(table);
        }
        let mut overlay: FxHashMap<Arc<str>, Vec<u32>> = FxHashMap::default();
        for row in &differing {
            for name in names_of(table, *row) {
                let rows = overlay.entry(Arc::clone(name)).or_default();
                if rows.last() != Some(row) {
                    rows.push(*row);
                }
            }
        }
        let order = OnceLock::new();
        if let Some(known) = previous.order.get() {
            let _ = order.set(merge_order(&previous.table, known, table));
        }
        Self { table: Arc::clone(table), base: Arc::clone(&previous.base), differing, overlay, order }
    }

    fn from_scratch(table: &Arc<ServerTable>) -> Self {
        let base = Arc::new(Base::build(table));
        Self {
            table: Arc::clone(table),
            base,
            differing: Vec::new(),
            overlay: FxHashMap::default(),
            order: OnceLock::new(),
        }
    }

    /// The table.
    pub fn table(&self) -> &Arc<ServerTable> {
        &self.table
    }

    /// The row of the server whose own name this is.
    pub fn row_of_server(&self, name: &str) -> Option<u32> {
        self.candidates(name).into_iter().find(|row| self.server(*row) == Some(name))
    }

    /// Which servers answer to a name: their own, else an alias.
    pub fn find(&self, name: &str) -> NameMatch {
        let candidates = self.candidates(name);
        if let Some(row) = candidates.iter().find(|row| self.server(**row) == Some(name)) {
            return NameMatch::Row(*row);
        }
        let mut rows: Vec<u32> = candidates
            .into_iter()
            .filter(|row| self.table.aliases.get(*row as usize).is_some_and(|a| a.iter().any(|alias| **alias == *name)))
            .collect();
        rows.sort_unstable();
        rows.dedup();
        match rows[..] {
            [] => NameMatch::None,
            [row] => NameMatch::Row(row),
            _ => NameMatch::Shared(rows),
        }
    }

    /// All rows in the order of the servers' names.
    pub fn order(&self) -> &[u32] {
        self.order.get_or_init(|| {
            let mut rows: Vec<u32> = (0..self.table.server.len() as u32).collect();
            rows.sort_unstable_by(|a, b| self.table.server[*a as usize].cmp(&self.table.server[*b as usize]));
            rows.into()
        })
    }

    fn server(&self, row: u32) -> Option<&str> {
        self.table.server.get(row as usize).map(|name| &**name)
    }

    /// Rows that may answer to the name: those of the overlay, and those of the base; the caller looks at their names.
    fn candidates(&self, name: &str) -> Vec<u32> {
        let mut rows = self.overlay.get(name).cloned().unwrap_or_default();
        let hash = FxBuildHasher.hash_one(name);
        let base = &self.base;
        if let Some(entry) = base.entries.find(hash, |entry| base.name(*entry) == Some(name)) {
            rows.push(entry.row);
        }
        if let Some(shared) = base.shared.get(name) {
            rows.extend(shared);
        }
        rows
    }

    /// Number of rows that are looked up beside the base; for tests of the reuse.
    pub fn overlay_rows(&self) -> usize {
        self.differing.len()
    }
}

impl Base {
    fn build(table: &Arc<ServerTable>) -> Self {
        let rows = table.server.len();
        let names = rows + table.aliases.iter().map(|aliases| aliases.len()).sum::<usize>();
        let mut base =
            Self { table: Arc::clone(table), entries: HashTable::with_capacity(names), shared: BTreeMap::new() };
        for row in 0..rows as u32 {
            base.insert(Entry { row, name: 0 });
        }
        for row in 0..rows as u32 {
            for name in 1..=table.aliases.get(row as usize).map_or(0, |aliases| aliases.len()) as u32 {
                base.insert(Entry { row, name });
            }
        }
        base
    }

    fn insert(&mut self, entry: Entry) {
        let table = &self.table;
        let Some(name) = name_of(table, entry) else { return };
        let hash = FxBuildHasher.hash_one(&**name);
        match self.entries.find(hash, |other| name_of(table, *other) == Some(name)) {
            None => {
                let rehash = |other: &Entry| FxBuildHasher.hash_one(name_of(table, *other).map_or("", |name| &**name));
                self.entries.insert_unique(hash, entry, rehash);
            }
            Some(other) if other.row == entry.row => {}
            Some(other) => {
                let rows = self.shared.entry(Arc::clone(name)).or_insert_with(|| vec![other.row]);
                rows.push(entry.row);
            }
        }
    }

    fn name(&self, entry: Entry) -> Option<&str> {
        name_of(&self.table, entry).map(|name| &**name)
    }
}

fn name_of(table: &ServerTable, entry: Entry) -> Option<&Arc<str>> {
    match entry.name.checked_sub(1) {
        None => table.server.get(entry.row as usize),
        Some(alias) => table.aliases.get(entry.row as usize)?.get(alias as usize),
    }
}

fn names_of(table: &ServerTable, row: u32) -> impl Iterator<Item = &Arc<str>> {
    let row = row as usize;
    table.server.get(row).into_iter().chain(table.aliases.get(row).into_iter().flat_map(|aliases| aliases.iter()))
}

/// Rows of `new` whose names are not those of the same row in `old`. Tables of one process share their strings, so that
/// mostly pointers are compared.
fn differing_rows(old: &ServerTable, new: &ServerTable) -> Vec<u32> {
    let same_name = |row: usize| match (old.server.get(row), new.server.get(row)) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a == b,
        _ => false,
    };
    let same_aliases = |row: usize| match (old.aliases.get(row), new.aliases.get(row)) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a == b,
        _ => false,
    };
    (0..new.server.len()).filter(|row| !same_name(*row) || !same_aliases(*row)).map(|row| row as u32).collect()
}

/// The order of `new` from that of `old`: rows that kept their server keep their place, the others are merged in.
fn merge_order(old: &ServerTable, old_order: &[u32], new: &ServerTable) -> Arc<[u32]> {
    let kept = |row: u32| match (old.server.get(row as usize), new.server.get(row as usize)) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a == b,
        _ => false,
    };
    let name = |row: u32| &new.server[row as usize];
    let mut added: Vec<u32> = (0..new.server.len() as u32).filter(|row| !kept(*row)).collect();
    added.sort_unstable_by(|a, b| name(*a).cmp(name(*b)));
    let mut added = added.into_iter().peekable();
    let mut merged = Vec::with_capacity(new.server.len());
    for row in old_order.iter().copied().filter(|row| kept(*row)) {
        while let Some(next) = added.next_if(|next| name(*next) < name(row)) {
            merged.push(next);
        }
        merged.push(row);
    }
    merged.extend(added);
    merged.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(servers: &[(&str, &[&str])]) -> Arc<ServerTable> {
        Arc::new(ServerTable {
            server: servers.iter().map(|(name, _)| Arc::from(*name)).collect(),
            aliases: servers.iter().map(|(_, a)| a.iter().map(|alias| Arc::from(*alias)).collect()).collect(),
            pool: vec![0; servers.len()],
            pools: vec![Arc::from("default")],
            rule: vec![0; servers.len()],
        })
    }

    #[test]
    fn own_names_win_and_shared_aliases_are_no_answer() {
        let names = Names::build(&table(&[("a", &["x", "shared"]), ("b", &["a", "shared"]), ("c", &["c"])]), None);
        for (name, expected) in [
            ("a", NameMatch::Row(0)),
            ("x", NameMatch::Row(0)),
            ("b", NameMatch::Row(1)),
            ("c", NameMatch::Row(2)),
            ("shared", NameMatch::Shared(vec![0, 1])),
            ("nobody", NameMatch::None),
        ] {
            assert_eq!(names.find(name), expected, "{name}");
        }
    }

    /// A small change is answered from the overlay, exactly as an index built from scratch answers.
    #[test]
    fn an_overlay_answers_as_a_new_index_does() {
        let first: Vec<(String, String)> = (0..40).map(|i| (format!("web-{i}"), format!("10.0.0.{i}"))).collect();
        let mut second = first.clone();
        second[3] = ("db-3".into(), "10.0.0.7".into());
        second.pop();
        second.push(("aaa".into(), "web-3".into()));
        second.push(("zzz".into(), "10.9.9.9".into()));
        let to_table = |rows: &[(String, String)]| {
            let aliases: Vec<[&str; 1]> = rows.iter().map(|(_, alias)| [alias.as_str()]).collect();
            let rows: Vec<(&str, &[&str])> =
                rows.iter().zip(&aliases).map(|((n, _), a)| (n.as_str(), &a[..])).collect();
            table(&rows)
        };
        let old = Names::build(&to_table(&first), None);
        assert_eq!(old.order().len(), 40);
        let new_table = to_table(&second);
        let derived = Names::build(&new_table, Some(&old));
        let fresh = Names::build(&new_table, None);
        assert_eq!(derived.overlay_rows(), 3);
        assert_eq!(derived.order(), fresh.order());
        for name in first.iter().chain(&second).flat_map(|(name, alias)| [name, alias]) {
            assert_eq!(derived.find(name), fresh.find(name), "{name}");
        }
        assert_eq!(derived.find("10.0.0.7"), NameMatch::Shared(vec![3, 7]));
        assert_eq!(derived.find("web-39"), NameMatch::None);
    }
}
