//! A service for tests: HTTP/1.1 with connections that stay open.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    time::sleep,
};

/// A running service, and what it was asked.
pub(crate) struct Service {
    pub(crate) url: String,
    questions: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

/// When it replies, and what.
pub(crate) type Reply = (Duration, String);

/// A reply at once, without a body.
pub(crate) fn reply(status: u16, headers: &str) -> Reply {
    (Duration::ZERO, format!("HTTP/1.1 {status} -\r\ncontent-length: 0\r\n{headers}\r\n"))
}

impl Service {
    /// Starts it. `answer` gets the head of a request.
    pub(crate) async fn start(answer: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/verify?by=agent", listener.local_addr().unwrap());
        let (questions, connections) = (Arc::default(), Arc::<AtomicUsize>::default());
        let service = Self { url, questions: Arc::clone(&questions), connections: Arc::clone(&connections) };
        let answer = Arc::new(answer);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve(stream, Arc::clone(&questions), Arc::clone(&answer)));
            }
        });
        service
    }

    pub(crate) fn questions(&self) -> Vec<String> {
        self.questions.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn serve(stream: TcpStream, questions: Arc<Mutex<Vec<String>>>, answer: Arc<impl Fn(&str) -> Reply>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
                return;
            }
        }
        questions.lock().unwrap().push(head.clone());
        let (delay, reply) = answer(&head);
        sleep(delay).await;
        if stream.write_all(reply.as_bytes()).await.is_err() {
            return;
        }
    }
}
