//! The handshake, and its failures.

use super::*;

#[test]
fn hellos_are_those_of_haproxy() {
    let line = |config| {
        let engine = Engine::new(config);
        let bytes = engine.reactor.outgoing().to_vec();
        notation::print(Frame::decode(&bytes[4..]).unwrap()).to_string()
    };
    assert_eq!(
        line(old()),
        "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 \
         capabilities=string:pipelining,async engine-id=string:an-id"
    );
    assert_eq!(
        line(new()),
        "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 \
         capabilities=string:pipelining engine-id=string:an-id"
    );
    for mut config in [old(), new()] {
        config.healthcheck = true;
        assert_eq!(
            line(config.clone()),
            "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 \
             capabilities=string:\"\" healthcheck=bool:true"
        );
        assert_eq!(Engine::new(config).reactor.outgoing().len(), 82);
    }
}

#[test]
fn each_bad_hello_has_the_status_of_haproxy() {
    for (items, old_code, new_code) in [
        ("version=string:2.1 max-frame-size=uint32:256 capabilities=string:\"\"", 8, 8),
        ("max-frame-size=uint32:256 capabilities=string:\"\"", 5, 5),
        ("version=string:2.0 capabilities=string:\"\"", 6, 0),
        ("version=string:2.0 max-frame-size=uint32:255 capabilities=string:\"\"", 9, 9),
        ("version=string:2.0 max-frame-size=uint32:16381 capabilities=string:\"\"", 9, 9),
        ("version=string:2.0 max-frame-size=string:256 capabilities=string:\"\"", 4, 4),
        ("version=string:2.0 max-frame-size=int64:256", 0, 0),
        ("x=null capabilities=string:pipelining max-frame-size=uint64:256 version=string:2.0", 0, 0),
        ("version=string:2.0 max-frame-size=uint32:256 hex:0562", 4, 4),
    ] {
        let line = format!("AGENT-HELLO fin 0 0 {items}");
        let mut engine = Engine::new(old());
        engine.sent();
        let said = engine.feed(&[&line]);
        if old_code == 0 {
            assert_eq!(said, ["established"], "{items}");
        } else {
            assert!(said.is_empty(), "{items}");
            assert_eq!(engine.sent(), [format!("HAPROXY-DISCONNECT fin 0 0 status-code=uint32:{old_code}")]);
            assert!(engine.reactor.interest().read);
            // The agent's status replaces it.
            let bye = "AGENT-DISCONNECT fin 0 0 status-code=uint32:77 message=string:bye";
            assert_eq!(engine.feed(&["ACK fin 1 1", bye]), ["close 333 []"]);
            assert!(engine.reactor.interest().close);
        }
        let mut engine = Engine::new(new());
        engine.sent();
        let said = engine.feed(&[&line]);
        if new_code == 0 {
            assert_eq!(said, ["established"], "{items}");
        } else {
            assert_eq!(said, [format!("close {} []", 256 + new_code)], "{items}");
            assert!(engine.reactor.outgoing().is_empty() && engine.reactor.interest().close);
        }
    }
}

#[test]
fn a_health_check_ends_with_the_hello() {
    for (config, strict) in [(old(), false), (new(), true)] {
        let config = EngineConfig { healthcheck: true, ..config };
        let check = |lines: &[&str]| {
            let mut engine = Engine::new(config.clone());
            engine.sent();
            engine.feed(lines)
        };
        let bye = "AGENT-DISCONNECT fin 0 0 status-code=uint32:3 message=string:bye";
        assert_eq!(check(&[HELLO]), ["close 256 []"]);
        assert_eq!(check(&[bye]), ["close 259 []"]);
        assert_eq!(check(&[HELLO, bye]), [if strict { "close 260 []" } else { "close 256 []" }]);
        let bare = "AGENT-HELLO fin 0 0 version=string:2.0 max-frame-size=uint32:256";
        assert_eq!(check(&[bare]), [if strict { "close 263 []" } else { "close 256 []" }]);
    }
}

#[test]
fn hello_timeouts_hang_up_and_idle_ones_say_goodbye() {
    for config in [old(), new()] {
        let mut engine = Engine::new(config);
        engine.sent();
        assert_eq!(engine.timeout(), ["close 258 []"]);
        assert!(engine.sent().is_empty() && engine.reactor.interest().close);
    }
    let mut engine = Engine::greeted(old(), HELLO);
    assert!(engine.timeout().is_empty());
    assert_eq!(engine.sent(), ["HAPROXY-DISCONNECT fin 0 0 status-code=uint32:2"]);
    assert_eq!(engine.eof(), ["close 257 []"]);
    let mut engine = Engine::greeted(old(), HELLO);
    assert!(engine.timeout().is_empty());
    engine.sent();
    assert_eq!(engine.timeout(), ["close 258 []"], "nobody answered the DISCONNECT");
    let mut engine = Engine::greeted(new(), HELLO);
    assert_eq!(engine.timeout(), ["close 258 []"]);
    assert!(engine.sent().is_empty());
}

#[test]
fn a_new_one_wants_hello_and_disconnect_whole() {
    let hello = notation::parse_bytes(HELLO).unwrap();
    for (config, cut, said) in
        [(new(), 10, "established"), (new(), 11, "close 260 []"), (old(), 11, "established")]
    {
        let mut engine = Engine::new(config);
        engine.sent();
        let mut all = engine.bytes(&hello[..cut]);
        all.extend(engine.bytes(&hello[cut..]));
        assert_eq!(all, [said]);
    }
}
