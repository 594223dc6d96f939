//! Pools and cells in one line each: how many servers are in which state, how bad it gets, how much is tolerated.

use headroom_model::CellSnapshot;
use headroom_model::coverage::{COVERAGE_FULL, coverage_share};

/// How much of a class the servers of a roll-up tolerate.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ClassShare {
    /// Mean admit fraction.
    pub admit_mean: f64,
    /// Mean of what enforcing would make of it.
    pub would_admit_mean: f64,
    /// Servers whose fraction, were it enforced, would be below 1.
    pub limited: u32,
}

/// The servers of a pool, or of the whole cell.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Rollup {
    /// Number of servers.
    pub servers: u32,
    /// What the policy's roll-up makes of them, or else their median health score; NaN if unknown.
    pub score: f32,
    /// Servers per `LoadState`.
    pub load_states: [u32; 5],
    /// Servers per `FaultState`.
    pub fault_states: [u32; 4],
    /// Servers per `Placement`.
    pub placements: [u32; 3],
    /// Lowest health score; NaN if none is known.
    pub score_min: f32,
    /// Median health score; NaN if none is known.
    pub score_median: f32,
    /// Mean share of the expected samples that had arrived, over servers of which it is known; NaN if of none.
    pub coverage_mean: f32,
    /// One for each class of the policy, in its order.
    pub classes: Vec<ClassShare>,
}

/// The roll-up of every pool, in the order of the table of servers, and that of the cell.
pub(crate) struct Rollups {
    pub(crate) pools: Vec<Rollup>,
    pub(crate) cell: Rollup,
}

impl Rollups {
    pub(crate) fn of(snapshot: &CellSnapshot) -> Self {
        let pools = snapshot.servers.pools.len();
        let mut rows_of: Vec<Vec<u32>> = vec![Vec::new(); pools];
        for (row, pool) in snapshot.servers.pool.iter().enumerate() {
            if let Some(rows) = rows_of.get_mut(*pool as usize) {
                rows.push(row as u32);
            }
        }
        let cell = Rollup::of(snapshot, 0..snapshot.len() as u32);
        let pools = match rows_of.as_slice() {
            [_] => vec![cell.clone()],
            _ => rows_of.iter().map(|rows| Rollup::of(snapshot, rows.iter().copied())).collect(),
        };
        let mut rollups = Self { pools, cell };
        let all = rollups.pools.iter_mut().chain([&mut rollups.cell]);
        for (rollup, score) in all.zip(&snapshot.rolled_up) {
            rollup.score = *score;
        }
        rollups
    }
}

impl Rollup {
    fn of(snapshot: &CellSnapshot, rows: impl Iterator<Item = u32> + Clone) -> Self {
        let health = &snapshot.health;
        let mut rollup = Self { score: f32::NAN, score_min: f32::NAN, score_median: f32::NAN, ..Self::default() };
        let (mut covered, mut expected) = (0u64, 0u64);
        let mut scores = Vec::new();
        for row in rows.clone().map(|row| row as usize) {
            rollup.servers += 1;
            count(&mut rollup.load_states, health.load_state[row]);
            count(&mut rollup.fault_states, health.fault_state[row]);
            count(&mut rollup.placements, health.placement[row]);
            if coverage_share(snapshot.coverage[row]).is_some() {
                covered += u64::from(snapshot.coverage[row]);
                expected += u64::from(COVERAGE_FULL);
            }
            if !health.score[row].is_nan() {
                scores.push(health.score[row]);
            }
        }
        // In whole numbers, whose sum is the same in any order. Of nothing it is NaN.
        rollup.coverage_mean = (covered as f64 / expected as f64) as f32;
        if !scores.is_empty() {
            // The lower of the two in the middle: a score that some server has.
            let middle = (scores.len() - 1) / 2;
            rollup.score_min = scores.iter().copied().fold(f32::INFINITY, f32::min);
            rollup.score_median = *scores.select_nth_unstable_by(middle, f32::total_cmp).1;
            rollup.score = rollup.score_median;
        }
        rollup.classes = snapshot
            .decisions
            .iter()
            .map(|class| {
                let mut share = ClassShare::default();
                for row in rows.clone().map(|row| row as usize) {
                    share.admit_mean += f64::from(class.admit[row]);
                    share.would_admit_mean += f64::from(class.would_admit[row]);
                    share.limited += u32::from(class.would_admit[row] < 1.0);
                }
                let servers = f64::from(rollup.servers.max(1));
                share.admit_mean /= servers;
                share.would_admit_mean /= servers;
                share
            })
            .collect();
        rollup
    }
}

fn count(counts: &mut [u32], number: u8) {
    if let Some(count) = counts.get_mut(usize::from(number)) {
        *count += 1;
    }
}
