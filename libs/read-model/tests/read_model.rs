//! What readers see after a sequence of snapshots.

mod fixture;

use std::sync::Arc;

use fixture::{EPOCH, snapshot, table};
use headroom_model::coverage::COVERAGE_UNKNOWN;
use headroom_model::snapshot::ServerTable;
use headroom_model::{CellSnapshot, Timestamp};
use headroom_read_model::{Applied, CellView, HISTORY_SECONDS, Lookup, ReadModel};

fn two() -> Arc<ServerTable> {
    table(&[("web-1", &["10.0.0.1", "web-1.example.net"], "web"), ("web-2", &["10.0.0.2"], "web")])
}

fn with_would_admit(mut snapshot: CellSnapshot, row: usize, value: f32) -> CellSnapshot {
    snapshot.decisions[1].would_admit[row] = value;
    snapshot
}

fn view(model: &ReadModel) -> Arc<CellView> {
    model.cell("eu-1").expect("the cell was applied")
}

fn changed(view: &CellView, since: i64) -> Vec<(usize, String)> {
    let rows = 0..view.snapshot().len() as u32;
    let name = |row: u32| view.snapshot().servers.server[row as usize].to_string();
    let of_class = |class| rows.clone().filter(move |row| view.changed_since(class, *row, since));
    (0..2).flat_map(|class| of_class(class).map(move |row| (class, name(row)))).collect()
}

fn removed(view: &CellView, since: i64) -> Vec<String> {
    view.removed_since(since).map(|removal| removal.server.to_string()).collect()
}

#[test]
fn an_older_or_equal_epoch_is_ignored_and_a_torn_snapshot_refused() {
    let model = ReadModel::new(5);
    assert_eq!(model.apply(snapshot("eu-1", EPOCH, two())), Applied::Published);
    assert_eq!(model.apply(snapshot("eu-1", EPOCH, two())), Applied::Old);
    assert_eq!(model.apply(snapshot("eu-1", EPOCH - 10, two())), Applied::Old);
    let mut torn = snapshot("eu-1", EPOCH + 10, two());
    torn.health.score.pop();
    assert_eq!(model.apply(torn), Applied::Inconsistent);
    assert_eq!(view(&model).epoch(), EPOCH);
}

#[test]
fn only_decisions_that_changed_are_told_also_when_rows_move() {
    let model = ReadModel::new(5);
    let servers = two();
    model.apply(snapshot("eu-1", EPOCH, servers.clone()));
    model.apply(with_would_admit(snapshot("eu-1", EPOCH + 10, servers.clone()), 1, 0.5));
    assert_eq!(changed(&view(&model), EPOCH), [(1, "web-2".into())]);
    assert_eq!(changed(&view(&model), EPOCH + 10), []);
    // The same servers in a table of other strings and another order; web-1 left its pool, which a decision shows.
    let moved = table(&[("web-2", &["10.0.0.2"], "web"), ("web-1", &[], "db"), ("web-3", &[], "web")]);
    model.apply(with_would_admit(snapshot("eu-1", EPOCH + 20, moved), 0, 0.5));
    let expected: Vec<(usize, String)> =
        vec![(0, "web-1".into()), (0, "web-3".into()), (1, "web-1".into()), (1, "web-3".into())];
    assert_eq!(changed(&view(&model), EPOCH + 10), expected);
    assert_eq!(changed(&view(&model), EPOCH).len(), 5);
}

#[test]
fn a_new_policy_changes_every_decision() {
    let model = ReadModel::new(5);
    model.apply(snapshot("eu-1", EPOCH, two()));
    let mut next = snapshot("eu-1", EPOCH + 10, two());
    Arc::make_mut(&mut next.policy).lease_seconds = 90;
    model.apply(next);
    assert_eq!(changed(&view(&model), EPOCH).len(), 4);
}

#[test]
fn removals_are_named_until_the_horizon_passes_them_or_the_server_returns() {
    let model = ReadModel::new(5);
    model.apply(snapshot("eu-1", EPOCH, two()));
    assert_eq!(view(&model).horizon(), EPOCH);
    let one = table(&[("web-2", &["10.0.0.2"], "web")]);
    model.apply(snapshot("eu-1", EPOCH + 10, one.clone()));
    assert_eq!(removed(&view(&model), EPOCH), ["web-1"]);
    assert_eq!(removed(&view(&model), EPOCH + 10), [""; 0]);
    model.apply(snapshot("eu-1", EPOCH + 20, two()));
    assert_eq!(removed(&view(&model), EPOCH), [""; 0]);
    model.apply(snapshot("eu-1", EPOCH + 30, one.clone()));
    let late = EPOCH + 30 + HISTORY_SECONDS;
    model.apply(snapshot("eu-1", late, one));
    assert_eq!(view(&model).horizon(), EPOCH + 30);
    assert_eq!(removed(&view(&model), EPOCH + 30), [""; 0]);
}

#[test]
fn stale_is_what_is_two_ticks_and_the_grace_behind_or_not_yet_renewed() {
    let at = |seconds| Timestamp::from_seconds(EPOCH + seconds);
    let model = ReadModel::new(5);
    let bytes = snapshot("eu-1", EPOCH, two()).encode();
    assert_eq!(model.restore(&bytes), Ok(Applied::Published));
    assert!(view(&model).is_stale(at(0)));
    assert_eq!(model.apply(snapshot("eu-1", EPOCH, two())), Applied::Published);
    for (seconds, stale) in [(-100, false), (0, false), (25, false), (26, true)] {
        assert_eq!(view(&model).is_stale(at(seconds)), stale, "{seconds}");
    }
    assert!(model.restore(b"?").is_err());
}

#[test]
fn a_name_in_two_cells_is_ambiguous_until_the_cell_decides() {
    let model = ReadModel::new(5);
    model.apply(snapshot("eu-1", EPOCH, two()));
    model.apply(snapshot("us-1", EPOCH, table(&[("other", &["web-1"], "web")])));
    let found = |name: &str, cell| match model.find(name, cell) {
        Lookup::NotFound => vec![],
        Lookup::Found(found) => vec![format!("{}/{}", found.view.snapshot().cell, found.server())],
        Lookup::Ambiguous(found) => {
            found.iter().map(|found| format!("{}/{}", found.view.snapshot().cell, found.server())).collect()
        }
    };
    assert_eq!(found("web-1", None), ["eu-1/web-1", "us-1/other"]);
    assert_eq!(found("web-1", Some("us-1")), ["us-1/other"]);
    assert_eq!(found("10.0.0.2", None), ["eu-1/web-2"]);
    assert_eq!(found("10.0.0.2", Some("us-1")), [""; 0]);
    assert_eq!(found("10.0.0.2", Some("nowhere")), [""; 0]);
}

#[test]
fn the_kill_switch_acts_at_once_also_on_cells_to_come_and_is_told_as_a_change() {
    let model = ReadModel::new(5);
    model.apply(snapshot("eu-1", EPOCH, two()));
    let woken = model.subscribe(Some("eu-1")).expect("the cell exists");
    model.kill(None, true);
    assert!(view(&model).is_killed());
    assert!(woken.has_changed().expect("the model lives"));
    assert_eq!(changed(&view(&model), EPOCH).len(), 4);
    model.apply(snapshot("us-1", EPOCH, table(&[("db-1", &[], "db")])));
    assert!(model.cell("us-1").is_some_and(|view| view.is_killed()));
    model.apply(snapshot("eu-1", EPOCH + 10, two()));
    assert!(view(&model).is_killed());
    assert_eq!(changed(&view(&model), EPOCH + 10), []);
    model.kill(Some("eu-1"), false);
    assert!(!view(&model).is_killed() && model.cell("us-1").is_some_and(|view| view.is_killed()));
    model.kill(None, false);
    assert!(model.cells().values().all(|view| !view.is_killed()));
}

/// A dead cell must not hold back the epoch of the others for ever; when it returns, whoever asked meanwhile is told.
#[test]
fn a_cell_that_lags_does_not_hold_back_the_others_and_misses_nobody_on_return() {
    let model = ReadModel::new(5);
    model.apply(snapshot("eu-1", EPOCH, two()));
    for tick in 0..10 {
        model.apply(snapshot("us-1", EPOCH + tick * 10, table(&[("db-1", &[], "db")])));
    }
    let handed_out = ReadModel::shared_epoch(model.cells().values()).expect("there are cells");
    assert_eq!(handed_out, EPOCH + 90);
    model.apply(with_would_admit(snapshot("eu-1", EPOCH + 80, two()), 0, 0.5));
    assert_eq!(changed(&view(&model), handed_out), [(1, "web-1".into())]);
    assert_eq!(ReadModel::shared_epoch(model.cells().values()), Some(EPOCH + 80));
}

/// What a cell publishes while it catches up is marked ahead of its epoch. Later marks must not fall behind that: who
/// was handed the epoch of the others meanwhile asks after it, and removals are kept in the order of their marks.
#[test]
fn marks_of_a_cell_that_catches_up_never_go_back() {
    let model = ReadModel::new(5);
    model.apply(snapshot("eu-1", EPOCH, two()));
    model.apply(snapshot("us-1", EPOCH + 90, table(&[("db-1", &[], "db")])));
    let handed_out = ReadModel::shared_epoch(model.cells().values()).expect("there are cells");
    let one = table(&[("web-2", &[], "web")]);
    model.apply(snapshot("eu-1", EPOCH + 80, table(&[("web-1", &[], "web"), ("web-2", &[], "web")])));
    model.apply(with_would_admit(snapshot("eu-1", EPOCH + 90, one), 0, 0.5));
    assert!(changed(&view(&model), handed_out).contains(&(1, "web-2".into())));
    assert_eq!(removed(&view(&model), handed_out), ["web-1"]);
    model.apply(with_would_admit(snapshot("eu-1", EPOCH + 100, two()), 1, 0.5));
    let epochs: Vec<i64> = view(&model).removed_since(0).map(|removal| removal.epoch).collect();
    assert!(epochs.is_sorted(), "{epochs:?}");
    assert_eq!(changed(&view(&model), EPOCH + 91), [(0, "web-1".into()), (1, "web-1".into())]);
}

#[test]
fn a_cell_that_comes_later_is_told_to_who_has_been_told_of_the_others() {
    for epoch in [EPOCH - 10, EPOCH] {
        let model = ReadModel::new(5);
        model.apply(snapshot("us-1", EPOCH, table(&[("db-1", &[], "db")])));
        model.apply(snapshot("eu-1", epoch, two()));
        assert_eq!(changed(&view(&model), EPOCH).len(), 4, "{}", epoch - EPOCH);
    }
}

/// That a cell was not there before is known as far back as the model goes, so nobody has to begin anew for it.
#[test]
fn a_cell_that_comes_later_does_not_make_what_was_told_before_too_old() {
    let came = |model: &ReadModel, epoch| {
        model.apply(snapshot("eu-1", epoch, two()));
        view(model).horizon() - EPOCH
    };
    let us = |epoch| snapshot("us-1", epoch, table(&[("db-1", &[], "db")]));
    let model = ReadModel::new(5);
    model.apply(us(EPOCH));
    model.apply(us(EPOCH + 10));
    assert_eq!(came(&model, EPOCH + 20), 0, "the model began with another cell");
    assert_eq!((changed(&view(&model), EPOCH).len(), changed(&view(&model), EPOCH + 10).len()), (4, 4));

    let model = ReadModel::new(5);
    model.apply(us(EPOCH));
    assert_eq!(came(&model, EPOCH + 2 * HISTORY_SECONDS), HISTORY_SECONDS, "it goes no further back than removals do");

    let model = ReadModel::new(5);
    assert_eq!(model.restore(&us(EPOCH).encode()), Ok(Applied::Published));
    assert_eq!(came(&model, EPOCH + 10), 0, "all cells of the run before are there");

    let model = ReadModel::new(5);
    assert!(model.restore(b"?").is_err());
    model.apply(us(EPOCH));
    assert_eq!(came(&model, EPOCH + 10), 10, "it may be the one that could not be read");
}

/// A process that begins with cells of different epochs knows changes of the newest of them from there on only. Whoever
/// asks it for all must be able to go on from what that answer says.
#[test]
fn whoever_was_told_all_may_ask_what_changed_since() {
    for restored in [true, false] {
        let model = ReadModel::new(5);
        let us = snapshot("us-1", EPOCH + 10, table(&[("db-1", &[], "db")]));
        if restored {
            for first in [us, snapshot("eu-1", EPOCH, two())] {
                assert_eq!(model.restore(&first.encode()), Ok(Applied::Published));
            }
        } else {
            model.apply(us);
            model.apply(snapshot("eu-1", EPOCH, two()));
        }
        let told = ReadModel::shared_epoch(model.cells().values()).expect("there are cells");
        assert!(model.cells().values().all(|view| view.horizon() <= told), "{restored}");
        model.apply(with_would_admit(snapshot("eu-1", EPOCH + 5, two()), 0, 0.5));
        assert!(changed(&view(&model), told).contains(&(1, "web-1".into())), "{restored}");
        for (cell, servers) in [("us-1", table(&[("db-1", &[], "db")])), ("eu-1", two())] {
            model.apply(snapshot(cell, EPOCH + 20, servers));
        }
        assert_eq!(ReadModel::shared_epoch(model.cells().values()), Some(EPOCH + 20), "{restored}");
    }
}

/// A reset that went to another replica reaches this one by way of the engine.
#[test]
fn the_kill_switch_ends_when_the_engine_has_obeyed_it_and_was_told_otherwise() {
    let off = |epoch| {
        let mut snapshot = snapshot("eu-1", epoch, two());
        snapshot.decisions.iter_mut().for_each(|class| class.mode.fill(0));
        snapshot
    };
    let on = |epoch| snapshot("eu-1", epoch, two());
    for (case, snapshots, repeats, killed) in [
        ("it has not obeyed yet", vec![on(EPOCH + 10), on(EPOCH + 20)], false, true),
        ("it obeys", vec![off(EPOCH + 10), off(EPOCH + 20)], false, true),
        ("it was told otherwise", vec![on(EPOCH + 10), off(EPOCH + 20), on(EPOCH + 30)], false, false),
        ("thrown anew meanwhile", vec![off(EPOCH + 10), on(EPOCH + 20)], true, true),
    ] {
        for cell in [None, Some("eu-1")] {
            let model = ReadModel::new(5);
            model.apply(off(EPOCH));
            model.kill(cell, true);
            let last = snapshots.len() - 1;
            for (at, snapshot) in snapshots.iter().enumerate() {
                if repeats && at == last {
                    model.kill(cell, true);
                }
                model.apply(snapshot.clone());
            }
            assert_eq!(view(&model).is_killed(), killed, "{case}");
            let epoch = view(&model).epoch();
            assert_eq!(changed(&view(&model), epoch).len(), if killed { 0 } else { 4 }, "{case}");
        }
    }
}

/// Readers of all cells ask after the epoch of those that live.
#[test]
fn the_kill_switch_of_a_cell_that_lags_is_told_to_who_reads_all_cells() {
    let model = ReadModel::new(5);
    model.apply(snapshot("eu-1", EPOCH, two()));
    model.apply(snapshot("us-1", EPOCH + 90, table(&[("db-1", &[], "db")])));
    let handed_out = ReadModel::shared_epoch(model.cells().values()).expect("there are cells");
    model.kill(Some("eu-1"), true);
    assert_eq!(changed(&view(&model), handed_out).len(), 4);
}

#[test]
fn roll_ups_count_states_and_shares_per_pool() {
    let model = ReadModel::new(5);
    let servers = table(&[("a", &[], "web"), ("b", &[], "web"), ("c", &[], "db")]);
    let mut snapshot = with_would_admit(snapshot("eu-1", EPOCH, servers), 0, 0.5);
    snapshot.health.score = vec![0.2, f32::NAN, 0.8];
    snapshot.coverage = vec![50, COVERAGE_UNKNOWN, 0];
    snapshot.health.load_state[1] = 0;
    model.apply(snapshot);
    let view = view(&model);
    let pools: Vec<_> = view.pool_rollups().iter().map(|p| (p.servers, p.load_states, p.score_min)).collect();
    assert_eq!(pools[1..], [(2, [1, 0, 1, 0, 0], 0.2), (1, [0, 0, 1, 0, 0], 0.8)]);
    assert!(pools[0].0 == 0 && pools[0].2.is_nan());
    let cell = view.rollup();
    assert_eq!((cell.servers, cell.score_median, cell.classes[1].limited), (3, 0.2, 1));
    assert_eq!(cell.coverage_mean, 0.25);
    let coverage: Vec<_> = view.pool_rollups().iter().map(|pool| pool.coverage_mean).collect();
    assert!(coverage[0].is_nan() && coverage[1..] == [0.5, 0.0], "{coverage:?}");
    assert!((cell.classes[1].would_admit_mean - 2.5 / 3.0).abs() < 1e-9);
}

#[test]
fn the_health_of_a_pool_is_what_the_policy_makes_of_it_or_the_median_of_its_servers() {
    let servers = table(&[("a", &[], "web"), ("b", &[], "web"), ("c", &[], "db")]);
    let mut snapshot = snapshot("eu-1", EPOCH, servers);
    snapshot.health.score = vec![0.2, 0.4, f32::NAN];
    let scores = |view: &CellView| {
        let rollups = view.pool_rollups()[1..].iter().chain([view.rollup()]);
        rollups.map(|rollup| Some(rollup.score).filter(|score| !score.is_nan())).collect::<Vec<_>>()
    };
    let model = ReadModel::new(5);
    model.apply(snapshot.clone());
    assert_eq!(scores(&view(&model)), [Some(0.2), None, Some(0.2)]);
    // Unknown to the roll-up is unknown, whatever the median is.
    snapshot.epoch += 10;
    snapshot.rolled_up = vec![f32::NAN, 0.7, 0.9, f32::NAN];
    model.apply(snapshot);
    assert_eq!(scores(&view(&model)), [Some(0.7), Some(0.9), None]);
}

#[test]
fn a_cell_without_servers_is_gone_and_who_left_with_it_is_told() {
    let model = ReadModel::new(5);
    model.apply(snapshot("us-1", EPOCH, two()));
    model.apply(snapshot("eu-1", EPOCH, two()));
    let mut told = model.subscribe(Some("eu-1")).expect("it is there");
    told.borrow_and_update();
    assert_eq!(model.apply(snapshot("eu-1", EPOCH + 10, table(&[]))), Applied::Published);
    assert!(told.has_changed().expect("whoever watches the cell is told"));
    assert!(model.cell("eu-1").is_none() && model.subscribe(Some("eu-1")).is_none());
    assert!(matches!(model.find("web-1", Some("eu-1")), Lookup::NotFound));
    assert!(matches!(model.find("web-1", None), Lookup::Found(_)));
    let departed = |model: &ReadModel| model.departed().get("eu-1").cloned();
    let gone = departed(&model).expect("it is remembered");
    assert_eq!(removed(&gone, EPOCH), ["web-1", "web-2"]);
    assert_eq!((removed(&gone, EPOCH + 10).len(), gone.horizon()), (0, EPOCH));
    // What an engine publishes again after a crash brings nothing back.
    assert_eq!(model.apply(snapshot("eu-1", EPOCH, two())), Applied::Old);
    assert_eq!(model.apply(snapshot("eu-1", EPOCH + 10, table(&[]))), Applied::Old);
    assert!(model.cell("eu-1").is_none());
    // Back with one of the two, it tells of the other as it would had it never left.
    model.apply(snapshot("eu-1", EPOCH + 30, table(&[("web-2", &[], "web")])));
    assert_eq!(removed(&view(&model), EPOCH), ["web-1"]);
    assert_eq!(changed(&view(&model), EPOCH + 10).len(), 2);
}

#[test]
fn a_cell_that_was_let_go_is_remembered_for_as_long_as_may_be_asked() {
    let model = ReadModel::new(5);
    for (cell, left) in
        [("eu-1", EPOCH + 10), ("us-1", EPOCH + 10 + HISTORY_SECONDS), ("ap-1", EPOCH + 20 + HISTORY_SECONDS)]
    {
        model.apply(snapshot(cell, EPOCH, two()));
        model.apply(snapshot(cell, left, table(&[])));
    }
    let names: Vec<String> = model.departed().keys().map(|name| name.to_string()).collect();
    assert_eq!(names, ["ap-1", "us-1"]);
    // Of a cell that nobody was told of there is nothing to remember.
    model.apply(snapshot("new", EPOCH, table(&[])));
    assert!(model.cell("new").is_none() && !model.departed().contains_key("new"));
}
