//! The guard of a local port: visitors get through only while the master there lets no one in without a password.
//!
//! ssh's forward ends at a socket of the tunnel. A master that starts again may have another database, so what an
//! examination found holds only while the connection that it left open stays open, and the same socket listens.

mod ask;
mod examination;
mod files;
mod http;
mod visitors;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::select_all;
use protocol::{Context, StageError};
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Tunnel;
use crate::config::{Config, GuardPolicy};
use crate::errors;
use crate::ssh::Listeners;
pub(crate) use ask::{ask, settle};
use examination::{ended, examine, is_silent};
use files::Files;
pub(crate) use files::{LEDGER_ENTRY, leftover};

/// The shortest time between two examinations.
const PAUSE: Duration = Duration::from_secs(1);
/// How many visitors wait for an examination.
const WAITING: usize = 256;

/// A random word that proves an arrival.
pub(crate) type Word = [u8; 16];

/// What the last examination of a local port found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing listens.
    Absent,
    /// Something listens that does not answer as a master does.
    Unexamined(String),
    /// These users have blank passwords.
    Open(Vec<&'static str>),
    /// The users that were tried have passwords.
    Guarded,
}

impl State {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            State::Absent => "absent",
            State::Unexamined(_) => "unexamined",
            State::Open(_) => "open",
            State::Guarded => "guarded",
        }
    }

    /// The state for people.
    pub(crate) fn describe(&self, port: u16) -> String {
        match self {
            State::Absent => {
                format!("nothing listens on local port {port}; visitors are refused")
            }
            State::Unexamined(why) => format!(
                "whether local port {port} requires passwords is not known, so visitors are refused: {why}"
            ),
            State::Open(_) => errors::open_master(port, self).message,
            State::Guarded => {
                format!("the master on local port {port} requires passwords; visitors get through")
            }
        }
    }
}

/// A state, and the number of the examination that found it.
#[derive(Clone, Debug)]
struct Examined {
    number: u64,
    state: State,
}

/// What an examination left to show whether its result still holds.
#[derive(Debug)]
struct Known {
    number: u64,
    /// A connection to the examined program, on which nothing is sent.
    idle: Arc<TcpStream>,
    listeners: Listeners,
}

/// The guard of one local port.
#[derive(Debug)]
pub(crate) struct Guard {
    pub(crate) port: u16,
    /// Where ssh's forward ends.
    pub(crate) socket: PathBuf,
    examined: watch::Sender<Examined>,
    known: Mutex<Option<Known>>,
    /// Requests an examination.
    wanted: Notify,
    waiting: Semaphore,
    /// Words that a proof of arrival waits for.
    words: Mutex<Vec<(Word, oneshot::Sender<()>)>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Guard {
    fn new(port: u16, socket: PathBuf) -> Guard {
        let state = State::Absent;
        let guard = Guard {
            port,
            socket,
            examined: watch::Sender::new(Examined { number: 0, state }),
            known: Mutex::default(),
            wanted: Notify::new(),
            waiting: Semaphore::new(WAITING),
            words: Mutex::default(),
        };
        guard.wanted.notify_one();
        guard
    }

    pub(crate) fn state(&self) -> State {
        self.examined.borrow().state.clone()
    }

    /// Whether the result of this examination still holds: there is no later one, and what it examined is still there.
    fn holds(&self, number: u64) -> bool {
        locked(&self.known).as_ref().is_some_and(|known| {
            known.number == number
                && is_silent(&known.idle)
                && known.listeners == Listeners::local(self.port)
        })
    }

    /// Examines the port whenever that is requested or the examined program closes the idle connection.
    async fn keep_examined(self: Arc<Guard>) {
        let mut next = Instant::now();
        loop {
            let idle = locked(&self.known).as_ref().map(|known| known.idle.clone());
            let gone = async {
                match idle {
                    Some(idle) => ended(&idle).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.wanted.notified() => {}
                () = gone => {}
            }
            let Examined { number, state } = self.examined.borrow().clone();
            if state == State::Guarded && self.holds(number) {
                continue;
            }
            tokio::time::sleep_until(next).await;
            next = Instant::now() + PAUSE;
            let (state, kept) = examine(self.port).await;
            if state == State::Absent {
                // A refused connection costs nothing, and what listens next is another program.
                next = Instant::now();
            }
            let number = number + 1;
            *locked(&self.known) = kept.map(|(idle, listeners)| Known {
                number,
                idle: Arc::new(idle),
                listeners,
            });
            self.examined.send_replace(Examined { number, state });
        }
    }

    /// Waits for the result of an examination from now on, unless the last one still holds.
    async fn examined_now(&self) -> State {
        let mut examined = self.examined.subscribe();
        let Examined { number, state } = examined.borrow_and_update().clone();
        if state == State::Guarded && self.holds(number) {
            return state;
        }
        self.wanted.notify_one();
        // The sender lives as long as the guard.
        drop(examined.changed().await);
        self.state()
    }

    /// Resolves when a visitor sends this word. Nothing else that visitors send is lost.
    pub(crate) fn expect(&self, word: Word) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        locked(&self.words).push((word, sender));
        receiver
    }
}

/// The guards of a tunnel.
#[derive(Debug)]
pub(crate) struct Guards {
    all: Vec<Arc<Guard>>,
    examined: Vec<watch::Receiver<Examined>>,
    files: Option<Files>,
    _tasks: JoinSet<()>,
}

impl Guards {
    /// Starts the guards that the config asks for.
    pub(crate) fn start(cx: &Context<Tunnel>, config: &Config) -> Result<Guards, StageError> {
        let own = (config.local_port, config.guard);
        let more = config.forwards.iter().map(|f| (f.local_port, f.guard));
        let ports = std::iter::once(own).chain(more);
        let ports = ports.filter(|(_, guard)| *guard == Some(GuardPolicy::Determined));
        let ports: Vec<u16> = ports.map(|(port, _)| port).collect();
        let mut guards = Guards {
            all: Vec::new(),
            examined: Vec::new(),
            files: None,
            _tasks: JoinSet::new(),
        };
        if ports.is_empty() {
            return Ok(guards);
        }
        let bound = Files::bind(cx, &ports)?;
        visitors::allow_many();
        for (port, (path, listener)) in ports.into_iter().zip(bound.ports) {
            let guard = Arc::new(Guard::new(port, path));
            guards._tasks.spawn(guard.clone().keep_examined());
            guards
                ._tasks
                .spawn(visitors::receive_all(guard.clone(), listener));
            guards.examined.push(guard.examined.subscribe());
            guards.all.push(guard);
        }
        guards
            ._tasks
            .spawn(ask::answer(bound.ask, guards.all.clone()));
        guards.files = Some(bound.files);
        Ok(guards)
    }

    /// The guard of a local port.
    pub(crate) fn of(&self, port: u16) -> Option<Arc<Guard>> {
        self.all.iter().find(|guard| guard.port == port).cloned()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Guard> {
        self.all.iter().map(|guard| &**guard)
    }

    /// Waits until an examination has ended.
    pub(crate) async fn examined(&mut self) {
        if self.examined.is_empty() {
            return std::future::pending().await;
        }
        let each = self.examined.iter_mut();
        let each = each.map(|examined| Box::pin(async { drop(examined.changed().await) }));
        select_all(each).await;
    }

    pub(crate) fn release(self) -> Result<(), StageError> {
        self.files.map_or(Ok(()), Files::release)
    }
}

#[cfg(test)]
mod tests;
