//! Our copies of the kernel's constants against the system's headers, by its C compiler.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

#[test]
fn every_constant_equals_the_headers() {
    let source = include_str!("../../ephport-nft/src/uapi.rs");
    let names: Vec<_> = source
        .lines()
        .filter_map(|line| line.strip_prefix("pub const ")?.strip_suffix(';'))
        .map(|line| {
            let (name, rest) = line.split_once(": ").expect("a type");
            let (_, value) = rest.split_once(" = ").expect("a value");
            (name, value.replace('_', ""))
        })
        .collect();
    assert!(names.len() > 100, "{}", names.len());
    let mut program = String::from(
        "#include <netinet/in.h>\n#include <sys/socket.h>\n#include <linux/capability.h>\n#include <linux/netlink.h>\n#include <linux/rtnetlink.h>\n\
         #include <linux/if_arp.h>\n#include <linux/if_link.h>\n#include <linux/nexthop.h>\n#include <linux/veth.h>\n\
         #include <linux/netfilter.h>\n#include <linux/netfilter_ipv4.h>\n\
         #include <linux/netfilter/nfnetlink.h>\n#include <linux/netfilter/nf_tables.h>\n\
         #include <linux/netfilter/nf_nat.h>\n\
         #include <linux/netfilter/nfnetlink_conntrack.h>\n\
         #include <linux/netfilter/nf_conntrack_tcp.h>\n\
         #include <linux/sock_diag.h>\n#include <netinet/tcp.h>\n",
    );
    for (name, value) in &names {
        writeln!(program, "_Static_assert({name} == ({value}), \"{name}\");").expect("written");
    }
    let mut compiler = Command::new("cc")
        .args(["-fsyntax-only", "-x", "c", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a C compiler; `tests/run` installs it");
    compiler.stdin.take().expect("a pipe").write_all(program.as_bytes()).expect("written");
    let output = compiler.wait_with_output().expect("its output");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
