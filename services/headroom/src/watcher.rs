//! Watching the policy file. Editors and configuration managers replace a file rather than write it, so its directory is
//! watched and changes of other files in it cost a look at the name.

use std::path::{Path, PathBuf};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc::Sender;

/// Sends `()` whenever the file may have changed, for as long as the watcher lives. One waiting message stands for any
/// number of changes. `None`, with a warning, where the platform cannot watch; SIGHUP still works.
pub(crate) fn watch(file: &Path, changed: Sender<()>) -> Option<RecommendedWatcher> {
    let name = file.file_name()?.to_owned();
    let directory =
        file.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(PathBuf::from("."), PathBuf::from);
    let handler = move |event: notify::Result<notify::Event>| {
        // A Kubernetes ConfigMap changes by a symbolic link beside the file, which bears another name.
        let concerns = |path: &PathBuf| path.file_name().is_some_and(|other| other == name || other == "..data");
        if event.is_ok_and(|event| !event.kind.is_access() && event.paths.iter().any(concerns)) {
            let _ = changed.try_send(());
        }
    };
    let watching = notify::recommended_watcher(handler)
        .and_then(|mut watcher| watcher.watch(&directory, RecursiveMode::NonRecursive).map(|()| watcher));
    watching
        .map_err(|error| tracing::warn!(%error, directory = %directory.display(), "cannot watch the policy file; SIGHUP reloads it"))
        .ok()
}
