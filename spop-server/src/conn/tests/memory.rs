//! When memory is released.

use super::*;

#[test]
fn memory_is_released_after_the_first_two_sends_and_when_the_connection_is_idle() {
    let mut server = Server::new(ServerConfig::default());
    let mut conn = server.connect();
    for (id, released) in [(0, 1), (1, 2), (2, 2), (3, 2)] {
        server.say(
            &mut conn,
            &if id == 0 { hello("pipelining", "e") } else { format!("NOTIFY fin {id} 1 now") },
        );
        server.hear(&mut conn);
        assert_eq!(server.app.released, released, "after {id} requests");
    }
    server.wait(&mut conn, millis(999));
    assert_eq!(server.app.released, 2);
    server.wait(&mut conn, millis(1));
    assert_eq!(server.app.released, 3);
    server.wait(&mut conn, Duration::from_secs(60));
    assert_eq!(server.app.released, 3, "once");
    for (id, released) in [(4, 4), (5, 5), (6, 5)] {
        server.say(&mut conn, &format!("NOTIFY fin {id} 1 now"));
        server.hear(&mut conn);
        assert_eq!(server.app.released, released, "after {id} requests");
    }
}

#[test]
fn a_server_may_keep_memory() {
    let mut config = AgentConfig::default();
    config.timeouts.memory = None;
    let mut server = Server::new(config);
    let mut conn = server.session("e");
    server.wait(&mut conn, Duration::from_secs(60));
    assert_eq!(server.app.released, 1);
}
