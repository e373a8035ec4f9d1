//! What a package installs: man pages, completions, the systemd unit; and the colours of the output.
//! The judges are man, bash, systemd-analyze and a terminal (script).

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use ephport_cli::Exit;
use ephport_tests::guard::{Guard, GuardedFile, wait_until};
use ephport_tests::tool::{binary, tool};
use ephport_tests::{Host, TempDir, ephport, ephport_ok, host_with_uplink};

const UNITS: [(&str, &str); 2] = [
    ("ephport.service", include_str!("../../packaging/systemd/ephport.service")),
    ("ephport-guard.service", include_str!("../../packaging/systemd/ephport-guard.service")),
];

/// The long flags that occur in a text.
fn flags(text: &str) -> BTreeSet<&str> {
    let is_other = |c: char| !(c.is_ascii_alphanumeric() || c == '-');
    text.split(is_other).filter(|word| word.starts_with("--") && word.len() > 2).collect()
}

#[test]
fn man_pages_render_with_every_flag() {
    let host = Host::new("host").unwrap();
    let directory = TempDir::new();
    let path = directory.path().to_str().unwrap();
    ephport_ok(&host, &format!("man {path}"));
    let mut commands = BTreeSet::new();
    for entry in fs::read_dir(path).unwrap() {
        let page = entry.unwrap().path();
        let name = page.file_stem().unwrap().to_str().unwrap();
        let words = name.strip_prefix("ephport-nft").unwrap().trim_start_matches('-');
        let words = words.replacen("import-", "import ", 1);
        let man = [
            "--warnings",
            "--nh",
            "--nj",
            "-P",
            "cat",
            "-E",
            "ascii",
            "-l",
            page.to_str().unwrap(),
        ];
        let rendered = tool(&host, "man", &man, "");
        assert!(rendered.success && rendered.err.is_empty(), "{rendered:?}");
        let help = ephport_ok(&host, &format!("{words} --help"));
        let shown = flags(&rendered.out);
        // Aliases are in the help only: clap_mangen does not write them.
        let is_alias = |line: &&str| line.contains("[alias: ");
        let help: Vec<_> = help.lines().filter(|line| !is_alias(line)).collect();
        for flag in flags(help.join("\n").split("Example").next().unwrap()) {
            assert!(shown.contains(flag), "{name}: {flag}\n{}", rendered.out);
        }
        commands.insert(words);
    }
    let help = ephport_ok(&host, "-h");
    let listed = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    for command in listed.lines().map(|line| line.split_whitespace().next().unwrap()) {
        assert!(commands.contains(command), "no page for {command}");
    }
}

#[test]
fn man_page_describes_every_policy_flag() {
    let host = Host::new("host").unwrap();
    let directory = TempDir::new();
    ephport_ok(&host, &format!("man {}", directory.path().display()));
    let page = fs::read_to_string(directory.path().join("ephport-nft-apply.1")).unwrap();
    // roff's sources escape the hyphens.
    let page = page.replace('\\', "");
    for key in ephport_core::policy::keys::KEYS {
        let start: String =
            key.help.chars().take_while(|c| c.is_alphanumeric() || *c == ' ').collect();
        let is_flag = page.contains(&format!("--{}", key.name)) || key.short.is_some();
        assert!(!is_flag || page.contains(start.trim()), "{}: {start}", key.name);
    }
}

#[test]
fn man_names_a_directory_that_cannot_be_written() {
    let host = Host::new("host").unwrap();
    let ended = ephport(&host, "man /absent/directory");
    assert_eq!(
        ended.err,
        "error: cannot write to /absent/directory: No such file or directory (os error 2)\n"
    );
}

/// What bash proposes for the last of these words.
fn completed(host: &Host, words: &[&str]) -> BTreeSet<String> {
    let script = ephport_ok(host, "completions bash");
    let last = words.len() - 1;
    let previous = words[last - 1];
    let line = format!(
        "{script}\nCOMP_WORDS=({}); COMP_CWORD={last}\n\
         _ephport__nft ephport-nft '{}' '{previous}'\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n",
        words.join(" "),
        words[last]
    );
    let printed = tool(host, "bash", &["-s"], &line);
    assert!(printed.success && printed.err.is_empty(), "{printed:?}");
    printed.out.lines().map(Into::into).collect()
}

#[test]
fn bash_completes_commands_flags_and_values() {
    let host = Host::new("host").unwrap();
    let set = |words: &[&str]| words.iter().map(|word| (*word).to_string()).collect();
    assert_eq!(completed(&host, &["ephport-nft", "sta"]), set(&["status"]));
    assert_eq!(completed(&host, &["ephport-nft", "apply", "--confi"]), set(&["--confirm"]));
    assert_eq!(completed(&host, &["ephport-nft", "show", "--format", "sys"]), set(&["sysctl"]));
}

#[test]
fn every_shell_has_completions() {
    let host = Host::new("host").unwrap();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = ephport_ok(&host, &format!("completions {shell}"));
        assert!(script.contains("out-interface") && script.contains("openmetrics"), "{shell}");
    }
}

/// `ephport-nft demo` with these flags and variables.
fn demo(flags: &[&str], variables: &[(&str, &str)], is_terminal: bool) -> Output {
    let mut command = if is_terminal {
        let mut command = Command::new("script");
        let line = format!("{} demo {}", binary().display(), flags.join(" "));
        command.args(["-q", "-e", "-c", &line, "/dev/null"]);
        command
    } else {
        let mut command = Command::new(binary());
        command.arg("demo").args(flags);
        command
    };
    command.env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE").env("TERM", "xterm");
    command.envs(variables.iter().copied()).stdin(Stdio::null()).output().expect("a process")
}

#[test]
fn colours_follow_flag_variables_and_terminal() {
    for (flags, variables, is_terminal, expected) in [
        (&[][..], &[][..], true, true),
        (&[], &[("NO_COLOR", "1")], true, false),
        (&["--color", "never"], &[("CLICOLOR_FORCE", "1")], true, false),
        (&["--color=always"], &[("NO_COLOR", "1")], false, true),
        (&[], &[("CLICOLOR_FORCE", "1")], false, true),
    ] {
        let output = demo(flags, variables, is_terminal);
        assert!(output.status.success(), "{output:?}");
        let has_colour = output.stdout.windows(2).any(|bytes| bytes == b"\x1b[");
        assert_eq!(has_colour, expected, "{flags:?} {variables:?} terminal: {is_terminal}");
    }
}

/// The unit in a file, with the binary of this build.
fn unit(directory: &Path, (name, text): (&str, &str)) -> String {
    let path = directory.join(name);
    let binary = binary();
    fs::write(&path, text.replace("/usr/bin/ephport-nft", binary.to_str().unwrap())).unwrap();
    path.to_str().unwrap().into()
}

#[test]
fn systemd_verifies_the_units() {
    let host = Host::new("host").unwrap();
    let directory = TempDir::new();
    for (name, text) in UNITS {
        let path = unit(directory.path(), (name, text));
        let verified = tool(&host, "systemd-analyze", &["verify", "--man=no", &path], "");
        assert!(verified.success && verified.err.is_empty(), "{verified:?}");
    }
    // A line that systemd does not know is an error, so the judge judges.
    let path = directory.path().join("wrong.service");
    fs::write(&path, UNITS[0].1.replace("ProtectHome=yes", "ProtectHom=yes")).unwrap();
    let wrong = tool(&host, "systemd-analyze", &["verify", "--man=no", path.to_str().unwrap()], "");
    assert!(wrong.err.contains("ProtectHom"), "{wrong:?}");
}

#[test]
fn systemd_rates_the_units_as_hardened() {
    let host = Host::new("host").unwrap();
    let directory = TempDir::new();
    for (name, text) in UNITS {
        let unit = unit(directory.path(), (name, text));
        // Tenths of "exposure": 10.0 without any restriction, below 2 is "OK".
        let args = ["security", "--offline=true", "--no-pager", "--threshold=20", &unit];
        let rated = tool(&host, "systemd-analyze", &args, "");
        assert!(rated.success, "{}\n{}", rated.out, rated.err);
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

/// Builds the Debian package of this version, of the binary of this build.
fn deb(version: &str) -> String {
    let mut command = Command::new(root().join("packaging/deb"));
    // Without compression, which is the slowest part.
    command.env("VERSION", version).env("DPKG_DEB_COMPRESSOR_TYPE", "none");
    let built = command.arg(binary()).output().expect("packaging/deb");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let path = String::from_utf8(built.stdout).expect("UTF-8");
    root().join(path.trim()).to_str().expect("UTF-8").into()
}

#[test]
fn debian_package_is_installed_upgraded_and_purged() {
    let host = Host::new("host").unwrap();
    let directory = TempDir::new();
    let at = |path: &str| directory.path().join(path);
    for part in ["info", "updates", "triggers"] {
        fs::create_dir_all(at("var/lib/dpkg").join(part)).unwrap();
    }
    fs::write(at("var/lib/dpkg/status"), "").unwrap();
    let dpkg = |words: &[&str]| {
        let root = format!("--root={}", directory.path().display());
        // The binary of this build is not static, and there is no libc6 in this root; nor a shell.
        let log = format!("--log={}", at("log").display());
        let options = [&root, "--force-depends", "--force-script-chrootless", &log];
        let ended = tool(&host, "dpkg", &[&options, words].concat(), "");
        assert!(ended.success, "{words:?}: {ended:?}");
        ended.out
    };
    dpkg(&["--install", &deb("0.1.0~test1")]);
    let installed = at("usr/bin/ephport-nft");
    let program = installed.to_str().unwrap();
    let ended = tool(&host, program, &["apply", "--to-ports", "2000-2999", "-o", "any"], "");
    assert!(ended.success, "{ended:?}");
    let example = at("usr/share/doc/ephport-nft/examples/policy.toml");
    let shown = tool(&host, program, &["show", "--format", "toml", example.to_str().unwrap()], "");
    assert!(shown.success && shown.out.contains("49152-61000"), "{shown:?}");
    for file in [
        "usr/lib/systemd/system/ephport.service",
        "usr/lib/systemd/system/ephport-guard.service",
        "usr/share/man/man1/ephport-nft-guard.1.gz",
        "usr/share/bash-completion/completions/ephport-nft",
        "usr/share/doc/ephport-nft/copyright",
    ] {
        assert!(at(file).is_file(), "{file}");
    }
    // The policy of the administrator survives all of it.
    let policy = at("etc/ephport/policy.toml");
    fs::write(&policy, "# mine").unwrap();
    dpkg(&["--install", &deb("0.1.0~test2")]);
    let listed = dpkg(&["--status", "ephport-nft"]);
    let status = "Status: install ok installed";
    assert!(listed.contains("Version: 0.1.0~test2") && listed.contains(status), "{listed}");
    dpkg(&["--remove", "ephport-nft"]);
    assert!(!installed.exists());
    dpkg(&["--install", &deb("0.1.0~test2")]);
    dpkg(&["--purge", "ephport-nft"]);
    assert!(!installed.exists() && !at("usr/share/doc/ephport-nft").exists());
    assert_eq!(fs::read_to_string(policy).unwrap(), "# mine");
    let left = tool(&host, "find", &[at("usr").to_str().unwrap(), "-type", "f"], "");
    assert_eq!(left.out, "");
}

#[test]
fn scripts_are_valid_shell() {
    let host = Host::new("host").unwrap();
    for script in [
        "static",
        "deb",
        "debian/postinst",
        "debian/prerm",
        "debian/postrm",
        "openwrt/ephport.init",
        "openwrt/90-ephport",
    ] {
        let path = root().join("packaging").join(script);
        let checked = tool(&host, "dash", &["-n", path.to_str().unwrap()], "");
        assert!(checked.success && checked.err.is_empty(), "{checked:?}");
    }
}

/// The hotplug script with these paths, after a provider's rules arrived.
#[test]
fn openwrt_imports_the_rules_of_the_provider() {
    let host = Host::new("host").unwrap();
    let directory = TempDir::new();
    let at = |path: &str| directory.path().join(path).to_str().unwrap().to_string();
    let rules = "RULE_BMR=1\nRULE_1_PORTSETS='1232-1235 2256-2259 '\n";
    fs::write(at("map-wan.rules"), rules).unwrap();
    let script = include_str!("../../packaging/openwrt/90-ephport")
        .replace("/tmp/map-", &at("map-"))
        .replace("/etc/ephport", &at("etc"))
        .replace("/usr/sbin/ephport-nft", binary().to_str().unwrap())
        .replace("/etc/init.d/ephport", "true");
    fs::write(at("script"), script).unwrap();
    for (action, exists) in [("ifdown", false), ("ifup", true)] {
        let ran = tool(&host, "env", &[&format!("ACTION={action}"), "sh", &at("script")], "");
        assert!(ran.success, "{ran:?}");
        assert_eq!(Path::new(&at("etc/policy.toml")).exists(), exists, "{action}");
    }
    let shown = ephport_ok(&host, &format!("show --format toml {}", at("etc/policy.toml")));
    assert!(shown.contains("1232-1235"), "{shown}");
    // Files without rules do not change the policy.
    let before = fs::read_to_string(at("etc/policy.toml")).unwrap();
    fs::write(at("map-wan.rules"), "nothing\n").unwrap();
    let ran = tool(&host, "env", &["ACTION=ifup", "sh", &at("script")], "");
    assert!(ran.success, "{ran:?}");
    assert_eq!(fs::read_to_string(at("etc/policy.toml")).unwrap(), before);
}

/// The documents of the YAML file, by Python.
fn kubernetes(host: &Host) -> Vec<serde_json::Value> {
    let script = "import json, sys, yaml\nprint(json.dumps(list(yaml.safe_load_all(sys.stdin))))";
    let text = include_str!("../../packaging/kubernetes/ephport.yaml");
    let read = tool(host, "python3", &["-c", script], text);
    assert!(read.success, "{read:?}");
    serde_json::from_str(&read.out).unwrap()
}

#[test]
fn daemon_set_guards_with_the_policy_of_its_config_map() {
    let (host, _peer) = host_with_uplink();
    let documents = kubernetes(&host);
    let of_kind = |kind: &str| documents.iter().find(|document| document["kind"] == kind).unwrap();
    let policy = of_kind("ConfigMap")["data"]["policy.toml"].as_str().unwrap();
    let spec = &of_kind("DaemonSet")["spec"]["template"]["spec"];
    let container = &spec["containers"][0];
    let capabilities = &container["securityContext"]["capabilities"];
    assert_eq!(spec["hostNetwork"], true);
    assert_eq!(capabilities, &serde_json::json!({ "drop": ["ALL"], "add": ["NET_ADMIN"] }));
    // Its arguments and probes, with files of this test in the place of its volumes.
    let file = GuardedFile::new(policy);
    let words = |list: &serde_json::Value| {
        let words = list.as_array().unwrap().iter().map(|word| word.as_str().unwrap());
        let directory = file.directory().to_str().unwrap().to_string();
        let words = words.map(|word| {
            word.replace("/etc/ephport", &directory).replace("/run/ephport", &directory)
        });
        words.collect::<Vec<_>>()
    };
    let mut command = Command::new(binary());
    command.args(words(&container["args"]));
    let guard = Guard::spawn(&host, &file, command);
    guard.wait_for("\"applied\"", 1);
    for probe in ["startupProbe", "readinessProbe"] {
        let command = words(&container[probe]["exec"]["command"]);
        assert_eq!(command[0], "/ephport-nft");
        assert_eq!(ephport(&host, &command[1..].join(" ")).exit, Exit::Success);
    }
    let metrics = file.directory().join("ephport.prom");
    wait_until("metrics", || metrics.exists(), String::new);
}
