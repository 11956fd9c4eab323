//! A watch: a response that goes on for as long as its client listens, or until its time is up.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use http::{Response, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::status;
use super::store::{Selection, Store, TooOld};
use crate::serve::Body;

pub(super) struct Watch {
    pub(super) selection: Selection,
    /// `None`: what is there now comes first, as ADDED.
    pub(super) from: Option<u64>,
    pub(super) timeout: Duration,
    pub(super) bookmarks: bool,
}

struct Progress {
    store: Arc<Store>,
    watch: Watch,
    revision: u64,
    changes: tokio::sync::watch::Receiver<u64>,
    lines: VecDeque<Value>,
    deadline: Instant,
    over: bool,
}

pub(super) fn respond(store: Arc<Store>, watch: Watch) -> Response<Body> {
    let changes = store.changes();
    let mut lines = VecDeque::new();
    let revision = watch.from.unwrap_or_else(|| {
        let (items, revision) = store.list(&watch.selection);
        lines.extend(items.into_iter().map(|item| event("ADDED", item)));
        revision
    });
    let deadline = Instant::now() + watch.timeout;
    let progress = Progress {
        store,
        watch,
        revision,
        changes,
        lines,
        deadline,
        over: false,
    };
    let frames = stream::unfold(progress, |mut progress| async move {
        let mut line = progress.next().await?.to_string();
        line.push('\n');
        Some((
            Ok::<_, Infallible>(Frame::data(Bytes::from(line))),
            progress,
        ))
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json"),
    );
    response
}

impl Progress {
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(line);
            }
            if self.over {
                return None;
            }
            self.changes.borrow_and_update();
            match self
                .store
                .events_after(self.revision, &self.watch.selection)
            {
                Err(TooOld { oldest }) => {
                    self.lines
                        .push_back(event("ERROR", status::expired(self.revision, oldest)));
                    self.over = true;
                }
                Ok((events, revision)) => {
                    self.revision = revision;
                    self.lines.extend(
                        events
                            .into_iter()
                            .map(|change| event(change.change, change.object)),
                    );
                    if self.lines.is_empty() {
                        self.wait().await;
                    }
                }
            }
        }
    }

    async fn wait(&mut self) {
        let changed = tokio::time::timeout_at(self.deadline, self.changes.changed()).await;
        if matches!(changed, Ok(Ok(()))) {
            return;
        }
        self.over = true;
        if self.watch.bookmarks {
            let kind = self.watch.selection.kind;
            let bookmark = json!({
                "kind": kind.kind,
                "apiVersion": kind.group_version(),
                "metadata": {"resourceVersion": self.revision.to_string()},
                // A bookmark of a real apiserver has the fields that its type requires, empty.
                "spec": {},
            });
            self.lines.push_back(event("BOOKMARK", bookmark));
        }
    }
}

fn event(change: &str, object: Value) -> Value {
    json!({"type": change, "object": object})
}
