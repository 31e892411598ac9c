//! haproxy.cfg and spoe.cfg for a scenario.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;

use super::binary::Engine;

/// What only the old engine knows in a `spoe-agent`: newer versions ignore these and will refuse them one day.
const APPLET_ONLY: &[&str] = &[
    "maxconnrate",
    "maxerrrate",
    "max-waiting-frames",
    "option async",
    "no option async",
    "option send-frag-payload",
    "no option send-frag-payload",
    "timeout hello",
    "timeout idle",
];

/// The name of the SPOE engine: agents set `SCOPE.e.NAME`.
const ENGINE: &str = "e";

/// One web frontend with a SPOE filter, and a backend of agents.
///
/// Unless a web server is given, the frontend answers every request itself once the filter is done with it.
#[derive(Clone, Debug)]
pub struct Config {
    servers: Vec<String>,
    server_options: String,
    threads: usize,
    web_server: Option<SocketAddr>,
    global: Vec<String>,
    frontend: Vec<String>,
    backend: Vec<String>,
    agent: Vec<String>,
    shown: Vec<String>,
    messages: Vec<Message>,
    pub(super) may_warn: bool,
}

#[derive(Clone, Debug)]
struct Message {
    name: String,
    args: Vec<String>,
    /// None for a message of the group.
    event: Option<String>,
}

impl Config {
    /// A configuration that asks the agent at `address`: `IP:PORT`, or the path of a unix socket.
    pub fn new(address: &str) -> Self {
        let empty = Self {
            servers: Vec::new(),
            server_options: String::new(),
            threads: 1,
            web_server: None,
            global: Vec::new(),
            frontend: Vec::new(),
            backend: Vec::new(),
            agent: Vec::new(),
            shown: Vec::new(),
            messages: Vec::new(),
            may_warn: false,
        };
        empty.server(address)
    }

    /// Adds one more agent to choose from.
    #[must_use]
    pub fn server(mut self, address: &str) -> Self {
        let kind = if address.contains('/') { "unix@" } else { "" };
        self.servers.push(format!("{kind}{address}"));
        self
    }

    /// The number of threads, 1 unless told otherwise. To an agent each is an HAProxy of its own: it has connections, an
    /// engine-id, and knows only what it has learned itself.
    #[must_use]
    pub fn threads(mut self, number: usize) -> Self {
        self.threads = number;
        self
    }

    /// Options of every server line, such as `check inter 100ms`.
    #[must_use]
    pub fn server_options(mut self, options: &str) -> Self {
        options.clone_into(&mut self.server_options);
        self
    }

    /// Everything goes through one connection to the agent: whenever HAProxy would like another, it waits for one in vain,
    /// and the pipeline has to do. Since 3.1 it is requests that are counted here, so they take turns.
    #[must_use]
    pub fn one_connection(self) -> Self {
        self.server_options("maxconn 1").backend("timeout queue 30s")
    }

    /// HAProxy may warn of this configuration, which is an error otherwise.
    #[must_use]
    pub fn may_warn(mut self) -> Self {
        self.may_warn = true;
        self
    }

    /// Requests go on to this web server.
    #[must_use]
    pub fn web_server(mut self, address: SocketAddr) -> Self {
        self.web_server = Some(address);
        self
    }

    /// Adds a line to the section `global`.
    #[must_use]
    pub fn global(mut self, line: &str) -> Self {
        self.global.push(line.to_owned());
        self
    }

    /// Adds a line to the frontend.
    #[must_use]
    pub fn frontend(mut self, line: &str) -> Self {
        self.frontend.push(line.to_owned());
        self
    }

    /// Adds a line to the backend of the agents.
    #[must_use]
    pub fn backend(mut self, line: &str) -> Self {
        self.backend.push(line.to_owned());
        self
    }

    /// Adds a line to the `spoe-agent`; of two `timeout processing` the later one counts. What only HAProxy up to 3.0 knows
    /// is left out for later versions.
    #[must_use]
    pub fn agent(mut self, line: &str) -> Self {
        self.agent.push(line.to_owned());
        self
    }

    /// Sends a message with each request.
    #[must_use]
    pub fn message(self, name: &str, args: &str) -> Self {
        self.message_on("on-frontend-http-request", name, args)
    }

    /// Sends a message at an event, which may be followed by a condition.
    #[must_use]
    pub fn message_on(self, event: &str, name: &str, args: &str) -> Self {
        self.add(Some(event), name, args)
    }

    /// Adds a message to the group `g`, which is sent by rules: `http-request send-spoe-group e g`.
    #[must_use]
    pub fn message_of_group(self, name: &str, args: &str) -> Self {
        self.add(None, name, args)
    }

    fn add(mut self, event: Option<&str>, name: &str, args: &str) -> Self {
        self.messages.push(Message {
            name: name.to_owned(),
            args: vec![args.to_owned()],
            event: event.map(ToOwned::to_owned),
        });
        self
    }

    /// Adds more arguments to the latest message: HAProxy takes at most 64 words on a line.
    #[must_use]
    pub fn args(mut self, args: &str) -> Self {
        if let Some(message) = self.messages.last_mut() {
            message.args.push(args.to_owned());
        }
        self
    }

    /// The reply shows the variable `txn.e.NAME`, if it is set, to [`Reply::var`](crate::http::Reply::var).
    /// Converters may follow the name, as in `echo.v,hex`.
    #[must_use]
    pub fn show(mut self, name: &str) -> Self {
        let bare = name.split(',').next().unwrap_or_default();
        self.shown.push(show(bare, &format!("txn.{ENGINE}.{bare}"), &name[bare.len()..]));
        self
    }

    /// Like [`show`](Self::show) for a variable of any scope, known to the reply as `SCOPE.NAME`.
    #[must_use]
    pub fn show_in(mut self, scope: &str, name: &str) -> Self {
        self.shown.push(show(&format!("{scope}.{name}"), &format!("{scope}.{ENGINE}.{name}"), ""));
        self
    }

    pub(super) fn write(&self, dir: &Path, engine: Engine) -> Result<()> {
        fs::write(dir.join("haproxy.cfg"), self.haproxy_cfg(dir, engine))?;
        fs::write(dir.join("spoe.cfg"), self.spoe_cfg(engine))?;
        Ok(())
    }

    fn haproxy_cfg(&self, dir: &Path, engine: Engine) -> String {
        let mode = match engine {
            Engine::Applet => "mode tcp",
            Engine::Multiplexer => "mode spop",
        };
        let dir = dir.display();
        let mut file = File::default();
        file.section("global")
            .line("log stdout format raw local0")
            .line("maxconn 2000")
            .line(&format!("nbthread {}", self.threads))
            .line(&format!("stats socket unix@{dir}/admin.sock level admin"))
            .lines(&self.global);
        file.section("defaults")
            .line("mode http")
            .line("timeout connect 2s")
            // Without it, a check that takes longer than `inter` has failed.
            .line("timeout check 2s")
            .line("timeout client 30s")
            .line("timeout server 30s");
        // The listening socket is inherited as standard input, see `Haproxy::start`.
        file.section("frontend web")
            .line("bind fd@0")
            .line(&format!("filter spoe engine {ENGINE} config {dir}/spoe.cfg"))
            .lines(&self.frontend)
            .line(&show("error", &format!("txn.{ENGINE}.error"), ""))
            .lines(&self.shown)
            .line(if self.web_server.is_some() {
                "default_backend origin"
            } else {
                "http-request return status 200"
            });
        if let Some(address) = self.web_server {
            file.section("backend origin").line(&format!("server web {address}"));
        }
        file.section("backend agents").line(mode).line("log global").lines(&self.backend);
        for (index, server) in self.servers.iter().enumerate() {
            file.line(&format!("server a{index} {server} {}", self.server_options));
        }
        file.0
    }

    fn spoe_cfg(&self, engine: Engine) -> String {
        let known = |line: &str| {
            engine == Engine::Applet || !APPLET_ONLY.iter().any(|directive| line.starts_with(directive))
        };
        let names = |of_group: bool| {
            let messages = self.messages.iter().filter(|message| message.event.is_none() == of_group);
            messages.map(|message| message.name.as_str()).collect::<Vec<_>>().join(" ")
        };
        let (on_events, of_group) = (names(false), names(true));
        let mut file = File(format!("[{ENGINE}]\n"));
        file.section(&format!("spoe-agent {ENGINE}"));
        if !on_events.is_empty() {
            file.line(&format!("messages {on_events}"));
        }
        if !of_group.is_empty() {
            file.line("groups g");
        }
        file.line("log global")
            .line("option dontlog-normal")
            .line(&format!("option var-prefix {ENGINE}"))
            .line("option set-on-error error")
            .line("timeout processing 8s")
            .line("use-backend agents");
        for line in
            ["timeout hello 5s", "timeout idle 60s"].into_iter().chain(self.agent.iter().map(String::as_str))
        {
            if known(line) {
                file.line(line);
            }
        }
        if !of_group.is_empty() {
            file.section("spoe-group g").line(&format!("messages {of_group}"));
        }
        for message in &self.messages {
            file.section(&format!("spoe-message {}", message.name));
            for args in &message.args {
                file.line(&format!("args {args}"));
            }
            if let Some(event) = &message.event {
                file.line(&format!("event {event}"));
            }
        }
        file.0
    }
}

fn show(header: &str, variable: &str, converters: &str) -> String {
    // To `var` in a format string, unset is the same as empty.
    format!(
        "http-after-response set-header x-{header} %[var({variable}){converters}] if {{ var({variable}) -m found }}"
    )
}

#[derive(Default)]
struct File(String);

impl File {
    fn section(&mut self, name: &str) -> &mut Self {
        self.0.push_str(name);
        self.0.push('\n');
        self
    }

    fn line(&mut self, line: &str) -> &mut Self {
        self.0.push_str("    ");
        self.0.push_str(line);
        self.0.push('\n');
        self
    }

    fn lines(&mut self, lines: &[String]) -> &mut Self {
        lines.iter().fold(self, |file, line| file.line(line))
    }
}
