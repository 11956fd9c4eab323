//! A watch: a response that goes on for as long as its client listens, or until its time is up.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use http::Response;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame};
use serde_json::{Value, json};
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, timeout_at};

use super::store::{Key, Objects, Selection, Store};
use crate::serve::Body;

struct Watch {
    store: Arc<Store>,
    selection: Selection,
    changes: Receiver<Objects>,
    /// What the client knows.
    known: BTreeMap<Key, Value>,
    events: VecDeque<Value>,
    deadline: Instant,
}

/// What changes after this revision.
pub(super) fn respond(
    store: Arc<Store>,
    selection: Selection,
    from: u64,
    time: Duration,
) -> Response<Body> {
    let mut known = store.list(&selection).0;
    known.retain(|_, object| {
        let revision = object["metadata"]["resourceVersion"].as_str();
        revision.is_some_and(|it| it.parse().is_ok_and(|it: u64| it <= from))
    });
    let watch = Watch {
        changes: store.changes(),
        store,
        selection,
        known,
        events: VecDeque::new(),
        deadline: Instant::now() + time,
    };
    let frames = stream::unfold(watch, |mut watch| async move {
        let line = format!("{}\n", watch.next().await?);
        let frame = Frame::data(Bytes::from(line));
        Some((Ok::<_, Infallible>(frame), watch))
    });
    Response::new(StreamBody::new(frames).boxed_unsync())
}

impl Watch {
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            self.changes.borrow_and_update();
            let now = self.store.list(&self.selection).0;
            let before = std::mem::replace(&mut self.known, now);
            for (key, object) in &self.known {
                match before.get(key) {
                    None => self.events.push_back(event("ADDED", object)),
                    Some(known) if known == object => {}
                    Some(_) => self.events.push_back(event("MODIFIED", object)),
                }
            }
            let gone = before
                .iter()
                .filter(|(key, _)| !self.known.contains_key(key));
            self.events
                .extend(gone.map(|(_, object)| event("DELETED", object)));
            if self.events.is_empty() {
                let changed = timeout_at(self.deadline, self.changes.changed()).await;
                changed.ok()?.ok()?;
            }
        }
    }
}

fn event(kind: &str, object: &Value) -> Value {
    json!({"type": kind, "object": object})
}
