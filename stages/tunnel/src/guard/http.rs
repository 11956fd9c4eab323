//! Requests to the local side, plain or by TLS, whichever it speaks.

use std::net::Ipv4Addr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

/// The answer to a login takes less than a kilobyte.
const BODY: usize = 64 * 1024;

/// A POST with a JSON body.
#[derive(Clone)]
pub(super) struct Request<'a> {
    pub(super) path: &'static str,
    pub(super) token: Option<&'a str>,
    pub(super) body: Value,
}

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Bytes,
}

/// The program on a local port.
pub(super) struct Local {
    port: u16,
    speaks_tls: AtomicBool,
}

impl Local {
    pub(super) fn new(port: u16) -> Local {
        Local {
            port,
            speaks_tls: AtomicBool::new(false),
        }
    }

    /// Sends a request. A program that does not understand it is asked by TLS. The error is for people.
    pub(super) async fn post(&self, request: Request<'_>) -> Result<Answer, String> {
        if self.speaks_tls.load(Ordering::Relaxed) {
            return self.post_by_tls(request).await;
        }
        let plain = self.post_plain(request.clone()).await;
        // Go's server answers plain HTTP on a port of TLS with this status.
        if plain.as_ref().is_ok_and(|answer| answer.status != 400) {
            return plain;
        }
        match self.post_by_tls(request).await {
            Ok(answer) => {
                self.speaks_tls.store(true, Ordering::Relaxed);
                Ok(answer)
            }
            Err(_) => plain,
        }
    }

    async fn post_plain(&self, request: Request<'_>) -> Result<Answer, String> {
        self.send(self.connect().await?, request).await
    }

    async fn post_by_tls(&self, request: Request<'_>) -> Result<Answer, String> {
        let failed = |e: &dyn std::fmt::Display| format!("no TLS: {e}");
        let connector = TlsConnector::from(Arc::new(any_certificate().map_err(|e| failed(&e))?));
        let name = ServerName::IpAddress(Ipv4Addr::LOCALHOST.into());
        let stream = connector.connect(name, self.connect().await?).await;
        self.send(stream.map_err(|e| failed(&e))?, request).await
    }

    async fn connect(&self) -> Result<TcpStream, String> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await;
        stream.map_err(|e| format!("no connection: {e}"))
    }

    async fn send(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send,
        request: Request<'_>,
    ) -> Result<Answer, String> {
        let failed =
            |e: &dyn std::error::Error| format!("it does not answer as an HTTP server: {e}");
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| failed(&e))?;
        let mut head = hyper::Request::post(request.path)
            .header(HOST, format!("127.0.0.1:{}", self.port))
            .header(CONNECTION, "close")
            .header(CONTENT_TYPE, "application/json");
        if let Some(token) = request.token {
            head = head.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = Full::new(Bytes::from(request.body.to_string()));
        let request = head.body(body).map_err(|e| failed(&e))?;
        let exchange = async {
            let answer = sender.send_request(request).await.map_err(|e| failed(&e))?;
            let status = answer.status().as_u16();
            // Only an answer with a token has a body that matters; another kind of answer may be longer.
            let body = Limited::new(answer.into_body(), BODY).collect().await;
            let body = body.map(|body| body.to_bytes()).unwrap_or_default();
            Ok(Answer { status, body })
        };
        let (mut exchange, mut connection) = (pin!(exchange), pin!(connection));
        tokio::select! {
            answer = &mut exchange => answer,
            _ = &mut connection => exchange.await,
        }
    }
}

fn any_certificate() -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    Ok(config)
}

/// Accepts any certificate: nothing secret is sent, and the connection does not leave this machine.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
