//! docs/metrics.md: Prometheus scrapes the metrics, its promtool tests the alerts, and each query of the
//! Grafana dashboard has a result.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ephport_tests::tool::ok;
use ephport_tests::{
    CLIENT_V4, Host, Protocol, Routed, SERVER_V4, Server, TempDir, connect, ephport_ok,
};
use serde_json::Value;

const EXPORTER: &str = "127.0.0.1:9101";
const PROMETHEUS: &str = "127.0.0.1:9090";
const POLICY: &str = "--to-ports 40000-40009 --enforce";

fn packaged(path: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    root.join("packaging").join(path)
}

/// A process that ends with the value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Serves the metrics of `host` for as many requests as come.
fn serve(host: &Host, metrics: String) {
    let listener = host.run(|| TcpListener::bind(EXPORTER)).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 4096]);
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\n\r\n";
            let _ = stream.write_all([head, &metrics].concat().as_bytes());
        }
    });
}

/// Starts Prometheus on `host`, with the packaged alerts and the exporter as its target.
fn prometheus(host: &Host, directory: &Path) -> Running {
    let config = directory.join("prometheus.yml");
    let rules = packaged("prometheus/ephport.rules.yml");
    let text = format!(
        "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n\
         rule_files: [ {} ]\n\
         scrape_configs: [ {{ job_name: ephport, static_configs: [ {{ targets: [ '{EXPORTER}' ] }} ] }} ]\n",
        rules.display()
    );
    fs::write(&config, text).unwrap();
    let arguments = [
        format!("--config.file={}", config.display()),
        format!("--storage.tsdb.path={}", directory.join("data").display()),
        format!("--web.listen-address={PROMETHEUS}"),
        "--log.level=error".into(),
    ];
    let start = || Command::new("prometheus").args(arguments).stdout(Stdio::null()).spawn();
    Running(host.run(start).expect("prometheus; `tests/run` installs it"))
}

/// The results of a query, once there are some.
fn query(host: &Host, expression: &str) -> Vec<Value> {
    let byte = |b: u8| format!("%{b:02X}");
    let encoded: String = expression.bytes().map(byte).collect();
    let request = format!(
        "GET /api/v1/query?query={encoded} HTTP/1.0\r\nHost: {PROMETHEUS}\r\nConnection: close\r\n\r\n"
    );
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(PROMETHEUS)?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut last = String::new();
    while Instant::now() < deadline {
        last = host.run(ask).unwrap_or_else(|error| error.to_string());
        let body = last.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let answer: Value = serde_json::from_str(body).unwrap_or_default();
        assert_ne!(answer["status"], "error", "{expression}: {answer}");
        if let Some(results) = answer["data"]["result"].as_array().filter(|all| !all.is_empty()) {
            return results.clone();
        }
        thread::sleep(Duration::from_millis(100));
    }
    panic!("{expression} has no result: {last}")
}

#[test]
fn alerts_are_raised_when_they_should() {
    let host = Host::new("host").unwrap();
    let (rules, tests) =
        (packaged("prometheus/ephport.rules.yml"), packaged("prometheus/ephport.rules.test.yml"));
    let checked = ok(&host, &format!("promtool check rules {}", rules.display()));
    assert!(checked.contains("SUCCESS: 3 rules found"), "{checked}");
    // It reports what it tests on standard error.
    let tested = Command::new("promtool").args(["test", "rules"]).arg(tests).output().unwrap();
    assert!(tested.status.success(), "{tested:?}");
}

#[test]
fn prometheus_scrapes_what_the_dashboard_shows() {
    let net = Routed::new().unwrap();
    ephport_ok(&net.router, &format!("apply {POLICY}"));
    let _server = Server::start(&net.server, 443).unwrap();
    let to = SocketAddr::new(SERVER_V4, 443);
    let open = (0..9u16).map(|i| {
        let from = SocketAddr::new(CLIENT_V4, 20_000 + i);
        net.client.run(|| connect(Protocol::Tcp, from, to)).unwrap()
    });
    let _open: Vec<_> = open.collect();
    serve(&net.router, ephport_ok(&net.router, &format!("usage --openmetrics {POLICY}")));
    let directory = TempDir::new();
    let _prometheus = prometheus(&net.router, directory.path());

    assert_eq!(query(&net.router, "up")[0]["value"][1], "1");
    let share = query(&net.router, "ephport_destination_port_usage_ratio{protocol=\"tcp\"}");
    assert_eq!((share[0]["value"][1].as_str(), share.len()), (Some("0.9"), 1));
    assert_eq!(share[0]["metric"]["address"], SERVER_V4.to_string());
    let pending = "ALERTS{alertname=\"EphportPortsNearlyExhausted\"}";
    assert_eq!(query(&net.router, pending)[0]["metric"]["alertstate"], "pending");

    let dashboard = fs::read_to_string(packaged("grafana/ephport.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let mut count = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            query(&net.router, &expression.replace("$instance", ".*"));
            count += 1;
        }
    }
    assert_eq!(count, 8);
}
