//! Addresses in HAProxy's format. Which can be read is tested in `spop-server`.

use std::os::{
    linux::net::SocketAddrExt as _,
    unix::net::{SocketAddr, UnixStream},
};

use crate::support::{Client, Running, within};
use spop_mio::{Actions, Outcome, Request, Server};

fn answer(_: Request<'_>) -> Outcome {
    Actions::new().into()
}

#[test]
fn abstract_sockets_are_served_by_all_workers() {
    within(|| {
        let name = format!("spop-mio-{}", std::process::id());
        let address = format!("abns@{name}");
        let padded = [name.as_bytes(), &vec![0; 107 - name.len()]].concat();
        let padded = SocketAddr::from_abstract_name(padded).unwrap();
        let server = Running::serve(Server::new(answer).workers(2).bind(address.as_str()).unwrap());
        assert_eq!(server.address.to_string(), address);
        for _ in 0..8 {
            let mut client = Client::new(UnixStream::connect_addr(&padded).unwrap());
            client.greet("pipelining", "e1");
            client.ask("NOTIFY fin 0 1 m", "ACK fin 0 1");
        }
        // The end of the server is the end of the name.
        drop(server);
        assert!(UnixStream::connect_addr(&padded).is_err());
        drop(Running::on(answer, address.as_str()));
    });
}

#[test]
fn unknown_prefixes_are_errors_of_bind() {
    let error = Server::new(answer).bind("quic4@:80").unwrap_err().to_string();
    assert!(error.contains("cannot listen on quic4@:80: the prefix quic4@ is not supported"), "{error}");
}
