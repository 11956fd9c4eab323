//! A stand-in for a Determined master's logins, on a port that it leaves and takes again.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Of no one: only the stand-in uses it.
const CERTIFICATE: &[u8] = include_bytes!("master/certificate.pem");
const KEY: &[u8] = include_bytes!("master/key.pem");

/// How a master behaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Behaviour {
    /// It serves TLS.
    pub tls: bool,
    /// It closes a connection on which nothing comes for this time.
    pub closes_idle: Option<Duration>,
    /// It shares its port with other programs.
    pub shares_port: bool,
}

/// What changes while it runs, and what it saw.
#[derive(Debug, Default)]
struct State {
    /// The users with a blank password.
    blank: Vec<String>,
    /// Every answer has this status.
    status: Option<u16>,
    /// The tokens that it gave, and those of them that were logged out.
    given: usize,
    sessions: BTreeSet<String>,
    idle_closed: usize,
    asked: usize,
}

/// A running master.
#[derive(Debug)]
pub struct Master {
    state: Arc<Mutex<State>>,
    answers: watch::Sender<bool>,
    /// How many requests came.
    requests: watch::Sender<usize>,
    listener: JoinSet<()>,
    connections: Arc<Mutex<JoinSet<()>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Master {
    /// With an old database, in which these users have blank passwords.
    pub fn start(port: u16, blank: &[&str]) -> Master {
        Master::with(port, blank, Behaviour::default())
    }

    pub fn with(port: u16, blank: &[&str], behaviour: Behaviour) -> Master {
        let listener = bind_port(port, behaviour.shares_port).expect("the port is not free");
        let blank = blank.iter().map(|user| (*user).to_owned()).collect();
        let state = State {
            blank,
            ..State::default()
        };
        let mut master = Master {
            state: Arc::new(Mutex::new(state)),
            answers: watch::Sender::new(true),
            requests: watch::Sender::new(0),
            listener: JoinSet::new(),
            connections: Arc::default(),
        };
        let tls = behaviour.tls.then(acceptor);
        let (state, answers) = (master.state.clone(), master.answers.clone());
        let requests = master.requests.clone();
        let connections = master.connections.clone();
        master.listener.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (state, answers) = (state.clone(), answers.subscribe());
                let requests = requests.clone();
                let (tls, idle) = (tls.clone(), behaviour.closes_idle);
                let mut all = locked(&connections);
                while all.try_join_next().is_some() {}
                all.spawn(async move {
                    // A client may disconnect.
                    let _ = match tls {
                        None => serve(stream, &state, answers, requests, idle).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => serve(stream, &state, answers, requests, idle).await,
                            Err(error) => Err(error),
                        },
                    };
                });
            }
        });
        master
    }

    /// Sets the users with a blank password.
    pub fn set_blank(&self, blank: &[&str]) {
        locked(&self.state).blank = blank.iter().map(|user| (*user).to_owned()).collect();
    }

    /// Answers every request with this status, or as a master again.
    pub fn set_status(&self, status: Option<u16>) {
        locked(&self.state).status = status;
    }

    /// Accepts connections and answers nothing while this is false.
    pub fn set_answers(&self, answers: bool) {
        self.answers.send_replace(answers);
    }

    /// Closes the port and all connections, as the end of its process does.
    pub async fn stop(mut self) {
        self.listener.shutdown().await;
        let mut connections = std::mem::take(&mut *locked(&self.connections));
        connections.shutdown().await;
    }

    /// Closes the port; its connections stay, as those of a master that drains.
    pub async fn stop_listening(&mut self) {
        self.listener.shutdown().await;
    }

    /// Waits until a client has sent a request.
    pub async fn is_asked(&self) {
        let mut requests = self.requests.subscribe();
        drop(requests.wait_for(|requests| *requests > 0).await);
    }

    /// How many tokens it gave, and how many of them are still valid.
    pub fn tokens(&self) -> (usize, usize) {
        let state = locked(&self.state);
        (state.given, state.sessions.len())
    }

    /// How many connections it closed because nothing came.
    pub fn idle_closed(&self) -> usize {
        locked(&self.state).idle_closed
    }

    /// How many requests it got besides logins.
    pub fn asked(&self) -> usize {
        locked(&self.state).asked
    }
}

fn bind_port(port: u16, shares: bool) -> io::Result<TcpListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if shares {
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    listen(&socket, 1024)?;
    TcpListener::from_std(socket.into())
}

fn acceptor() -> TlsAcceptor {
    let certificate = CertificateDer::from_pem_slice(CERTIFICATE).expect("no certificate");
    let key = PrivateKeyDer::from_pem_slice(KEY).expect("no key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("no version of TLS")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("the key does not fit");
    TlsAcceptor::from(Arc::new(config))
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    state: &Mutex<State>,
    mut answers: watch::Receiver<bool>,
    requests: watch::Sender<usize>,
    idle: Option<Duration>,
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let first = timeout(idle.unwrap_or(Duration::MAX), stream.fill_buf()).await;
        match first {
            Err(_) => {
                locked(state).idle_closed += 1;
                return Ok(());
            }
            Ok(Ok([]) | Err(_)) => return Ok(()),
            Ok(_) => {}
        }
        let (head, body) = read_request(&mut stream).await?;
        requests.send_modify(|requests| *requests += 1);
        drop(answers.wait_for(|answers| *answers).await);
        let (status, answer) = answer(&mut locked(state), &head, &body);
        let text = answer.to_string();
        let text = format!(
            "HTTP/1.1 {status} Status\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{text}",
            text.len()
        );
        stream.write_all(text.as_bytes()).await?;
        if head.to_ascii_lowercase().contains("connection: close") {
            return stream.shutdown().await;
        }
    }
}

async fn read_request(
    stream: &mut (impl AsyncRead + AsyncBufReadExt + Unpin),
) -> io::Result<(String, Value)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let lower = head.to_ascii_lowercase();
    let length = lower
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.and_then(|text| text.parse().ok()).unwrap_or(0)];
    stream.read_exact(&mut body).await?;
    Ok((head, serde_json::from_slice(&body).unwrap_or_default()))
}

fn answer(state: &mut State, head: &str, body: &Value) -> (u16, Value) {
    if let Some(status) = state.status {
        return (status, json!({}));
    }
    let path = head.split(' ').nth(1).unwrap_or_default();
    match path {
        "/api/v1/auth/login" => {
            let user = body["username"].as_str().unwrap_or_default();
            if body["password"] != "" || !state.blank.iter().any(|blank| blank == user) {
                return (401, json!({"error": {"error": "invalid credentials"}}));
            }
            state.given += 1;
            let token = format!("token-{}", state.given);
            state.sessions.insert(token.clone());
            (200, json!({"token": token, "user": {"username": user}}))
        }
        "/api/v1/auth/logout" => {
            let sessions = std::mem::take(&mut state.sessions);
            let is_used = |token: &String| head.contains(&format!("Bearer {token}\r\n"));
            state.sessions = sessions
                .into_iter()
                .filter(|token| !is_used(token))
                .collect();
            (200, json!({}))
        }
        _ => {
            state.asked += 1;
            (200, json!({"path": path}))
        }
    }
}

/// Sends a request to a port, and returns the status and the body of the answer.
async fn request(port: u16, head: &str, body: &str) -> io::Result<(u16, Value)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let text = format!(
        "{head} HTTP/1.1\r\nHost: master\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(text.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let status = status.ok_or(io::ErrorKind::UnexpectedEof)?;
    let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
    Ok((status, serde_json::from_str(body).unwrap_or_default()))
}

/// Visits a port as a pod does, and returns the status of the answer.
pub async fn visit(port: u16) -> io::Result<u16> {
    Ok(request(port, "GET /pod", "").await?.0)
}

/// Logs in with a blank password, and returns the status and the token.
pub async fn log_in(port: u16, user: &str) -> io::Result<(u16, Option<String>)> {
    let login = json!({"username": user, "password": ""}).to_string();
    let (status, body) = request(port, "POST /api/v1/auth/login", &login).await?;
    Ok((status, body["token"].as_str().map(str::to_owned)))
}

/// Clients that log in with a blank password all the time.
pub struct Burglars {
    /// How often they tried, and their tokens.
    seen: watch::Sender<(usize, Vec<String>)>,
    _tasks: JoinSet<()>,
}

impl Burglars {
    pub fn at(port: u16) -> Burglars {
        let seen = watch::Sender::new((0, Vec::new()));
        let mut tasks = JoinSet::new();
        for user in ["admin", "determined"] {
            let seen = seen.clone();
            tasks.spawn(async move {
                loop {
                    let came = log_in(port, user).await;
                    seen.send_modify(|seen| {
                        seen.0 += 1;
                        seen.1.extend(came.ok().and_then(|(_, token)| token));
                    });
                }
            });
        }
        let _tasks = tasks;
        Burglars { seen, _tasks }
    }

    /// Waits until they tried again, and fails if one got a token.
    pub async fn got_nothing(&self) {
        let mut seen = self.seen.subscribe();
        let before = seen.borrow().0;
        let more = seen.wait_for(|seen| seen.0 >= before + 10).await;
        assert_eq!(more.expect("the sender is here").1, Vec::<String>::new());
    }
}
