//! Which rows are alike in several text columns: a number per row, equal where all of the columns are.
//!
//! A batch of fifty thousand rows has a thousand servers and fifty series. Rows are therefore numbered column by column,
//! each pass with one look into a table, and names are put together once per number.

use rustc_hash::FxHashMap;

use super::column::{Coded, MISSING};

/// Entries per row of a table that is addressed instead of searched; larger ones cost more to clear than they save.
const ENTRIES_PER_ROW_MAX: usize = 8;

/// Rows numbered by what they have in common.
pub(super) struct Groups {
    /// Per row.
    pub(super) of_row: Vec<u32>,
    /// A row of each group.
    pub(super) first_row: Vec<usize>,
}

impl Groups {
    /// Groups of rows that are alike in all the columns.
    pub(super) fn new(rows: usize, columns: &[&Coded<'_>]) -> Self {
        let mut groups = Self { of_row: vec![0; rows], first_row: if rows == 0 { Vec::new() } else { vec![0] } };
        for column in columns {
            groups.split(column);
        }
        groups
    }

    /// Splits every group by a column.
    fn split(&mut self, column: &Coded<'_>) {
        // The code of a missing text becomes the one behind the last.
        let width = column.width() + 1;
        let code_of = |code: u32| if code == MISSING { width as u32 - 1 } else { code };
        let mut first_row = Vec::new();
        let mut open = |row: usize| {
            first_row.push(row);
            (first_row.len() - 1) as u32
        };
        let entries_max = self.of_row.len().saturating_mul(ENTRIES_PER_ROW_MAX).saturating_add(1024);
        match self.first_row.len().checked_mul(width).filter(|entries| *entries <= entries_max) {
            Some(entries) => {
                let mut table = vec![u32::MAX; entries];
                for (row, (group, code)) in self.of_row.iter_mut().zip(&column.codes).enumerate() {
                    let entry = &mut table[*group as usize * width + code_of(*code) as usize];
                    if *entry == u32::MAX {
                        *entry = open(row);
                    }
                    *group = *entry;
                }
            }
            None => {
                let mut table: FxHashMap<(u32, u32), u32> = FxHashMap::default();
                for (row, (group, code)) in self.of_row.iter_mut().zip(&column.codes).enumerate() {
                    *group = *table.entry((*group, code_of(*code))).or_insert_with(|| open(row));
                }
            }
        }
        self.first_row = first_row;
    }
}
