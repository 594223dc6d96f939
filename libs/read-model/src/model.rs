//! The map of cells, and the one writer's way into it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use headroom_model::CellSnapshot;
use headroom_model::codec::DecodeError;
use tokio::sync::watch;

use crate::changes::{Changes, HISTORY_SECONDS};
use crate::names::{NameMatch, Names};
use crate::view::CellView;

/// A cell this much older than the newest one no longer holds back the epoch of an answer over several cells. What it
/// publishes when it returns is marked as newer than every epoch handed out meanwhile.
pub const LAG_SECONDS: i64 = 60;

/// What became of a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Applied {
    /// It is what readers see.
    Published,
    /// Readers already had this epoch or a later one: a published epoch is never amended.
    Old,
    /// Its columns disagree with each other; readers keep what they had.
    Inconsistent,
}

/// A persisted snapshot that cannot be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RestoreError(pub DecodeError);

impl fmt::Display for RestoreError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the persisted snapshot has no {} at byte {}", self.0.what, self.0.at)
    }
}

impl std::error::Error for RestoreError {}

/// A server that was found.
#[derive(Clone)]
pub struct Found {
    /// Its cell.
    pub view: Arc<CellView>,
    /// Its row there.
    pub row: u32,
}

impl Found {
    /// The server's own name.
    pub fn server(&self) -> &Arc<str> {
        &self.view.snapshot.servers.server[self.row as usize]
    }
}

/// The answer to a name.
#[derive(Clone)]
pub enum Lookup {
    /// No cell, or not the one asked for, knows the name.
    NotFound,
    /// The server.
    Found(Found),
    /// Several servers answer to it.
    Ambiguous(Vec<Found>),
}

/// The latest snapshot of every cell. Readers never wait; writers take turns.
pub struct ReadModel {
    cells: ArcSwap<BTreeMap<Arc<str>, Arc<CellView>>>,
    writer: Mutex<Writer>,
    /// Cells that were let go, for as long as somebody may ask who was removed. One that has returned stays here until
    /// then, so that whoever has looked for it among the living a moment too early finds it here.
    departed: ArcSwap<BTreeMap<Arc<str>, Arc<CellView>>>,
    version: watch::Sender<u64>,
    grace_seconds: i64,
}

/// What only writers need to know. Its lock is their turn.
#[derive(Default)]
struct Writer {
    kills: Kills,
    began: Began,
}

/// Since when it is known which cells there are: before the newest epoch that the model was restored with, or without
/// any the first that it was given, an earlier process may have told of cells that are gone.
#[derive(Clone, Copy, Default)]
enum Began {
    #[default]
    NotYet,
    At(i64),
    /// A persisted snapshot could not be read, so a cell that seems to be new may be an old one.
    Unknown,
}

impl Began {
    fn restored(&mut self, epoch: i64) {
        *self = match *self {
            Self::NotYet => Self::At(epoch),
            Self::At(began) => Self::At(began.max(epoch)),
            Self::Unknown => Self::Unknown,
        };
    }

    /// How far back the changes of a cell are known whose first snapshot, of `epoch`, comes now: that it was not there
    /// before is known as well.
    fn horizon_of_new_cell(&mut self, epoch: i64) -> i64 {
        match *self {
            Self::NotYet => {
                *self = Self::At(epoch);
                epoch
            }
            Self::At(began) => began.min(epoch),
            Self::Unknown => epoch,
        }
    }
}

/// Where the kill switch is thrown, also for cells that are yet to come.
#[derive(Default)]
struct Kills {
    everywhere: bool,
    /// Cells for which it is otherwise.
    except: BTreeSet<Arc<str>>,
}

impl Kills {
    fn is_killed(&self, cell: &str) -> bool {
        self.everywhere != self.except.contains(cell)
    }

    fn set(&mut self, cell: Option<&str>, thrown: bool) {
        match cell {
            None => *self = Self { everywhere: thrown, except: BTreeSet::new() },
            Some(cell) if thrown == self.everywhere => {
                self.except.remove(cell);
            }
            Some(cell) => {
                self.except.insert(cell.into());
            }
        }
    }
}

impl ReadModel {
    /// An empty model. A snapshot is stale when two of its ticks and `grace_seconds` have passed: some seconds on the
    /// wall clock, for the way from the engine to here; 0 in event time, where no way takes time.
    pub fn new(grace_seconds: i64) -> Self {
        Self {
            cells: ArcSwap::default(),
            writer: Mutex::new(Writer::default()),
            departed: ArcSwap::default(),
            version: watch::Sender::new(0),
            grace_seconds,
        }
    }

    /// Makes a snapshot the one that readers see, unless they have a later one. The costly parts (index of names,
    /// changes) are made before it becomes visible. An empty one is the last of its cell, which then is no longer there.
    pub fn apply(&self, snapshot: impl Into<Arc<CellSnapshot>>) -> Applied {
        self.publish(snapshot.into(), false)
    }

    /// Publishes a persisted snapshot, stale until an engine renews it.
    ///
    /// # Errors
    /// If the bytes are damaged or of a newer version.
    pub fn restore(&self, bytes: &[u8]) -> Result<Applied, RestoreError> {
        let snapshot = CellSnapshot::decode(bytes).map_err(|error| {
            self.writer().began = Began::Unknown;
            RestoreError(error)
        })?;
        Ok(self.publish(Arc::new(snapshot), true))
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, snapshot: Arc<CellSnapshot>, restored: bool) -> Applied {
        let mut writer = self.writer();
        let Writer { kills, began } = &mut *writer;
        let (cells, departed) = (self.cells.load_full(), self.departed.load_full());
        let old = cells.get(&snapshot.cell).or_else(|| departed.get(&snapshot.cell));
        let is_old = |old: &Arc<CellView>| {
            snapshot.epoch < old.epoch() || (snapshot.epoch == old.epoch() && (restored || !old.restored))
        };
        if old.is_some_and(is_old) {
            return Applied::Old;
        }
        if !snapshot.is_consistent() {
            return Applied::Inconsistent;
        }
        if snapshot.is_empty() && !cells.contains_key(&snapshot.cell) {
            // Nobody was told of it.
            return Applied::Published;
        }
        let names = names_of(&snapshot, old.map(|old| &old.names));
        let newest = newest_told(&cells);
        let changes = match old {
            // Who was told of the others before this cell came must be told of it too.
            None => {
                let horizon = if restored {
                    began.restored(snapshot.epoch);
                    snapshot.epoch
                } else {
                    began.horizon_of_new_cell(snapshot.epoch)
                };
                Changes::first(&snapshot, after(newest, snapshot.epoch), horizon)
            }
            Some(old) => {
                let has_lagged = newest.is_some_and(|newest| newest.saturating_sub(old.epoch()) > lag_seconds(old));
                let told = if has_lagged { newest } else { horizon(cells.values()) };
                old.changes.next(&old.snapshot, &snapshot, &old.names, &names, after(told, snapshot.epoch))
            }
        };
        let cell = Arc::clone(&snapshot.cell);
        let was_killed = kills.is_killed(&cell);
        let is_off = was_killed && is_all_off(&snapshot);
        let obeyed = (is_off && !restored) || old.is_some_and(|old| old.obeyed);
        if was_killed && obeyed && !is_off && !restored {
            // The engine obeyed and was told otherwise since, perhaps by way of another replica: its word is the newer.
            kills.set(Some(&cell), false);
        }
        let killed = kills.is_killed(&cell);
        let kill_moved =
            if was_killed == killed { old.and_then(|old| old.kill_moved) } else { newest.max(Some(snapshot.epoch)) };
        let view = CellView {
            names,
            changes: Arc::new(changes),
            rollups: Arc::new(OnceLock::new()),
            version: old.map_or_else(|| Arc::new(watch::Sender::new(0)), |old| Arc::clone(&old.version)),
            grace_seconds: self.grace_seconds,
            restored,
            killed,
            obeyed: obeyed && killed,
            kill_moved,
            snapshot,
        };
        if view.snapshot.is_empty() {
            self.let_go(cell, view);
        } else {
            self.store([(cell, view)]);
        }
        Applied::Published
    }

    /// Takes a cell from among the living. The caller holds the writers' lock.
    fn let_go(&self, cell: Arc<str>, view: CellView) {
        let mut departed = (**self.departed.load()).clone();
        let oldest = view.epoch().saturating_sub(HISTORY_SECONDS);
        departed.retain(|_, held| held.changes.last_mark() >= oldest);
        let version = Arc::clone(&view.version);
        departed.insert(Arc::clone(&cell), Arc::new(view));
        // First here, then there: who looks at the living first finds it in one of the two.
        self.departed.store(Arc::new(departed));
        let mut cells = (**self.cells.load()).clone();
        cells.remove(&cell);
        self.cells.store(Arc::new(cells));
        version.send_modify(|version| *version += 1);
        self.version.send_modify(|version| *version += 1);
    }

    /// Throws or resets the kill switch, for a cell or for all. The last word counts: one about all cells replaces what
    /// was said about single ones. In a cell whose engine has obeyed, it ends when the engine publishes anything but off.
    pub fn kill(&self, cell: Option<&str>, thrown: bool) {
        let mut writer = self.writer();
        let kills = &mut writer.kills;
        kills.set(cell, thrown);
        let cells = self.cells.load_full();
        // A cell that lags is told of under the epoch of the others, so that is what its readers ask after.
        let newest = newest_told(&cells);
        let views: Vec<_> = cells
            .iter()
            .filter(|(name, _)| cell.is_none_or(|cell| ***name == *cell))
            .filter_map(|(name, view)| {
                let killed = kills.is_killed(name);
                let has_moved = view.killed != killed;
                // Thrown anew, what the engine obeyed before is no answer to it.
                (has_moved || view.obeyed).then(|| {
                    let kill_moved = if has_moved { newest } else { view.kill_moved };
                    (Arc::clone(name), CellView { killed, kill_moved, obeyed: false, ..(**view).clone() })
                })
            })
            .collect();
        self.store(views);
    }

    /// Swaps views in and tells the subscribers. The caller holds the writers' lock.
    fn store(&self, views: impl IntoIterator<Item = (Arc<str>, CellView)>) {
        let mut cells = (**self.cells.load()).clone();
        let mut versions = Vec::new();
        for (cell, view) in views {
            versions.push(Arc::clone(&view.version));
            cells.insert(cell, Arc::new(view));
        }
        self.cells.store(Arc::new(cells));
        for version in &versions {
            version.send_modify(|version| *version += 1);
        }
        if !versions.is_empty() {
            self.version.send_modify(|version| *version += 1);
        }
    }

    /// All cells at this moment, by name.
    pub fn cells(&self) -> Arc<BTreeMap<Arc<str>, Arc<CellView>>> {
        self.cells.load_full()
    }

    /// Cells that were let go within the last [`HISTORY_SECONDS`], also those that have returned. All that is to be read
    /// of them is who was removed. Ask for [`Self::cells`] first: a cell that leaves in between is then not missed.
    pub fn departed(&self) -> Arc<BTreeMap<Arc<str>, Arc<CellView>>> {
        self.departed.load_full()
    }

    /// A cell.
    pub fn cell(&self, cell: &str) -> Option<Arc<CellView>> {
        self.cells.load().get(cell).cloned()
    }

    /// The server that answers to a name or alias, in one cell or in all of them.
    pub fn find(&self, name: &str, cell: Option<&str>) -> Lookup {
        let cells = self.cells.load();
        let mut found = Vec::new();
        let mut look_in = |view: &Arc<CellView>| match view.names.find(name) {
            NameMatch::None => {}
            NameMatch::Row(row) => found.push(Found { view: Arc::clone(view), row }),
            NameMatch::Shared(rows) => {
                found.extend(rows.into_iter().map(|row| Found { view: Arc::clone(view), row }));
            }
        };
        match cell {
            Some(cell) => cells.get(cell).into_iter().for_each(&mut look_in),
            None => cells.values().for_each(&mut look_in),
        }
        match found.len() {
            0 => Lookup::NotFound,
            1 => found.pop().map_or(Lookup::NotFound, Lookup::Found),
            _ => Lookup::Ambiguous(found),
        }
    }

    /// Wakes whenever a cell, or any cell, is published anew or its kill switch moves. `None` if there is no such cell.
    pub fn subscribe(&self, cell: Option<&str>) -> Option<watch::Receiver<u64>> {
        match cell {
            None => Some(self.version.subscribe()),
            Some(cell) => self.cells.load().get(cell).map(|view| view.version.subscribe()),
        }
    }

    /// The epoch of an answer over several cells: the smallest, so that nothing is missed and something may come twice,
    /// except for cells that lag by more than [`LAG_SECONDS`]; but none before which changes are not known, so that
    /// whoever asks what changed after it is told. `None` without cells.
    pub fn shared_epoch<'a>(cells: impl Iterator<Item = &'a Arc<CellView>> + Clone) -> Option<i64> {
        let newest = cells.clone().map(|view| view.epoch()).max()?;
        let keeps_up = |view: &&Arc<CellView>| newest.saturating_sub(view.epoch()) <= lag_seconds(view);
        cells.clone().filter(keeps_up).map(|view| view.epoch()).min().max(horizon(cells))
    }
}

/// The earliest epoch that may be asked about in all of the cells.
fn horizon<'a>(cells: impl Iterator<Item = &'a Arc<CellView>>) -> Option<i64> {
    cells.map(|view| view.horizon()).max()
}

/// No answer had a later epoch than this.
fn newest_told(cells: &BTreeMap<Arc<str>, Arc<CellView>>) -> Option<i64> {
    cells.values().map(|view| view.epoch().max(view.horizon())).max()
}

/// A cell with long ticks may be that much behind without lagging.
fn lag_seconds(view: &CellView) -> i64 {
    LAG_SECONDS.max(view.snapshot.tick_seconds.saturating_mul(3))
}

/// The mark of a change at `epoch`: after all that was handed out, the last of which was `handed_out`.
fn after(handed_out: Option<i64>, epoch: i64) -> i64 {
    handed_out.map_or(epoch, |handed_out| epoch.max(handed_out.saturating_add(1)))
}

/// Whether the engine itself limits nothing, anywhere in the cell. An empty cell says nothing about that.
fn is_all_off(snapshot: &CellSnapshot) -> bool {
    !snapshot.is_empty() && snapshot.decisions.iter().all(|class| class.mode.iter().all(|mode| *mode == 0))
}

/// The index of a snapshot: the one before, if the table is the same or has the same content.
fn names_of(snapshot: &CellSnapshot, previous: Option<&Arc<Names>>) -> Arc<Names> {
    match previous {
        Some(previous)
            if Arc::ptr_eq(previous.table(), &snapshot.servers) || **previous.table() == *snapshot.servers =>
        {
            Arc::clone(previous)
        }
        _ => Arc::new(Names::build(&snapshot.servers, previous.map(|names| &**names))),
    }
}
