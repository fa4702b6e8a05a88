use super::*;
use crate::run::run;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Map, Value, json};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const LIMIT: Duration = Duration::from_secs(20);
/// For a server that never answers.
const SHORT: Duration = Duration::from_millis(300);
const TAKEN: Says = Says::This("HTTP/1.1 204 No Content\r\n\r\n");

/// What a server says.
#[derive(Clone, Copy)]
enum Says {
    Nothing,
    This(&'static str),
    /// The second again and again.
    Endless(&'static str, &'static str),
}

/// A server, and what it was asked.
struct Server {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(acceptor: Option<TlsAcceptor>, says: Says) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, notes) = (acceptor.clone(), Arc::clone(&notes));
                tokio::spawn(async move {
                    match acceptor {
                        None => serve(stream, says, &notes).await,
                        Some(acceptor) => match acceptor.accept(stream).await {
                            Ok(stream) => serve(stream, says, &notes).await,
                            Err(_) => Ok(()),
                        },
                    }
                });
            }
        });
        Self { port, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    says: Says,
    notes: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut text = String::new();
    while !text.ends_with('}') {
        let mut buffer = [0; 1024];
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        // TLS, where none is spoken.
        let Ok(part) = std::str::from_utf8(&buffer[..read]) else { return Ok(()) };
        text.push_str(part);
    }
    notes.lock().unwrap().push(text);
    match says {
        Says::Nothing => std::future::pending().await,
        Says::This(text) => stream.write_all(text.as_bytes()).await?,
        Says::Endless(first, more) => {
            stream.write_all(first.as_bytes()).await?;
            loop {
                stream.write_all(more.as_bytes()).await?;
            }
        }
    }
    stream.shutdown().await
}

/// An authority that signs certificates, made by openssl(1).
struct Authority(TempDir);

impl Authority {
    fn new() -> Self {
        let it = Self(tempfile::tempdir().unwrap());
        // Authorities of one name would be told apart by their signatures.
        let name = it.0.path().file_name().unwrap().display();
        it.openssl(&format!("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.pem -subj /CN={name} -days 2"));
        it
    }

    fn openssl(&self, arguments: &str) {
        let mut command = Command::new("openssl");
        let output =
            command.args(arguments.split(' ')).current_dir(self.0.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("ca.pem")
    }

    fn web(&self) -> Web {
        Web::new(&[], Some(&self.file())).unwrap()
    }

    /// For a server of this name, for so many days from now.
    fn certify(&self, name: &str, days: i32) -> TlsAcceptor {
        self.openssl(&format!("req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -out request.pem -subj /CN=server -addext subjectAltName={name}"));
        self.openssl(&format!("x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -copy_extensions copy -days {days} -out server.pem"));
        let certificate = CertificateDer::from_pem_file(self.0.path().join("server.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(self.0.path().join("key.pem")).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

async fn post(web: &Web, url: &str, limit: Duration) -> Outcome {
    let hook = Hook::parse(&format!("on_fence={url}"), &["on_fence"]).unwrap();
    let object: Map<String, Value> =
        json!({ "event_id": "f-1-7", "role": "standby" }).as_object().unwrap().clone();
    run(&hook, web, &object, limit).await
}

fn failed(outcome: Outcome) -> String {
    let Outcome::Failed(why) = outcome else { panic!("{outcome:?}") };
    assert!(!why.contains("secret"), "{why}");
    why
}

#[tokio::test]
async fn a_notice_is_posted_with_its_id_as_the_key() {
    let server = Server::start(None, TAKEN).await;
    let web = Web::new(&[], None).unwrap();
    let url = format!("http://us%65r:p%3Ass@127.0.0.1:{}/hook?token=secret#part", server.port);
    assert_eq!(post(&web, &url, LIMIT).await, Outcome::Done);
    let asked = server.asked().concat();
    let (head, body) = asked.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /hook?token=secret HTTP/1.1\r\n"), "{head}");
    let head = head.to_lowercase();
    for line in [
        "idempotency-key: f-1-7".to_owned(),
        "content-type: application/json".to_owned(),
        format!("host: 127.0.0.1:{}", server.port),
        // user:p:ss
        "authorization: basic dxnlcjpwonnz".to_owned(),
    ] {
        assert!(head.lines().any(|it| it == line), "{line} is not in {head}");
    }
    assert_eq!(body, r#"{"event_id":"f-1-7","role":"standby"}"#);
}

#[tokio::test]
async fn other_answers_are_failures_and_name_no_url() {
    let web = Web::new(&[], None).unwrap();
    let missing = Server::start(None, Says::This("HTTP/1.1 404 Not Found\r\n\r\n")).await;
    let url = |port| format!("http://127.0.0.1:{port}/?token=secret");
    let why = failed(post(&web, &url(missing.port), LIMIT).await);
    assert_eq!(why, "it was answered 404 Not Found");
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let why = failed(post(&web, &url(gone), LIMIT).await);
    assert!(why.contains("refused"), "{why}");
}

/// A login page would say 200 to what became a GET.
#[tokio::test]
async fn a_redirect_is_not_followed() {
    let login = Server::start(None, Says::This("HTTP/1.1 200 OK\r\n\r\n")).await;
    for status in ["302 Found", "307 Temporary Redirect"] {
        let text = format!(
            "HTTP/1.1 {status}\r\nLocation: http://127.0.0.1:{}/secret\r\n\r\n",
            login.port
        );
        let server = Server::start(None, Says::This(text.leak())).await;
        let url = format!("http://127.0.0.1:{}/", server.port);
        let why = failed(post(&Web::new(&[], None).unwrap(), &url, LIMIT).await);
        assert!(why.contains("redirect"), "{why}");
    }
    assert_eq!(login.asked(), [""; 0]);
}

#[tokio::test]
async fn a_refusal_is_read_within_bounds() {
    let web = Web::new(&[], None).unwrap();
    let says = Says::Endless("HTTP/1.1 409 Conflict\r\n\r\n", "not \u{1b}[1mnow\n");
    let server = Server::start(None, says).await;
    let url = format!("http://127.0.0.1:{}/", server.port);
    let Outcome::Refused(why) = post(&web, &url, LIMIT).await else { panic!("no refusal") };
    // What is cut is cut in the middle of a line.
    assert!(why.starts_with("not") && !why.contains('\u{1b}'), "{why}");
    let silent = Server::start(None, Says::This("HTTP/1.1 409 Conflict\r\n\r\n")).await;
    let url = format!("http://127.0.0.1:{}/", silent.port);
    let refused = Outcome::Refused("409 Conflict".to_owned());
    assert_eq!(post(&web, &url, LIMIT).await, refused);
}

#[tokio::test]
async fn only_a_server_that_proves_its_name_is_told() {
    let (ours, other) = (Authority::new(), Authority::new());
    let server = Server::start(Some(ours.certify("DNS:localhost,IP:127.0.0.1", 2)), TAKEN).await;
    for host in ["localhost", "127.0.0.1"] {
        let url = format!("https://{host}:{}/?token=secret", server.port);
        assert_eq!(post(&ours.web(), &url, LIMIT).await, Outcome::Done, "{host}");
        let why = failed(post(&other.web(), &url, LIMIT).await);
        assert!(why.contains("UnknownIssuer") && why.contains("--hook-ca-file"), "{why}");
    }
    let nobody = Web::trusting(RootCertStore::empty()).unwrap();
    let url = format!("https://localhost:{}/?token=secret", server.port);
    let why = failed(post(&nobody, &url, LIMIT).await);
    assert!(why.contains("ca-certificates"), "{why}");
    assert_eq!(server.asked().len(), 2);
    for (name, days, word) in
        [("DNS:elsewhere", 2, "not valid for name"), ("DNS:localhost", -1, "expired")]
    {
        let server = Server::start(Some(ours.certify(name, days)), TAKEN).await;
        let url = format!("https://localhost:{}/?token=secret", server.port);
        let why = failed(post(&ours.web(), &url, LIMIT).await);
        assert!(why.to_lowercase().contains(word), "{why}");
        assert_eq!(server.asked(), [""; 0]);
    }
    // One that speaks no TLS.
    let plain = Server::start(None, TAKEN).await;
    failed(post(&ours.web(), &format!("https://localhost:{}/", plain.port), SHORT * 10).await);
}

#[tokio::test]
async fn a_server_that_never_answers_is_not_waited_for() {
    let ours = Authority::new();
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tls = Server::start(Some(ours.certify("DNS:localhost", 2)), Says::Nothing).await;
    let plain = Server::start(None, Says::Nothing).await;
    let mute = mute.local_addr().unwrap().port();
    for (scheme, port) in [("https", mute), ("https", tls.port), ("http", plain.port)] {
        let outcome = post(&ours.web(), &format!("{scheme}://localhost:{port}/"), SHORT).await;
        assert_eq!(outcome, Outcome::TimedOut, "{scheme}");
    }
    assert_eq!((tls.asked().len(), plain.asked().len()), (1, 1));
}

#[test]
fn a_file_without_authorities_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    let error = || Web::new(&[], Some(&path)).unwrap_err().to_string();
    assert!(error().contains("ca.pem") && error().contains("No such file"), "{}", error());
    for (text, word) in [
        ("", "no certificate"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "invalid"),
    ] {
        std::fs::write(&path, text).unwrap();
        assert!(error().contains(word), "{}", error());
    }
}
