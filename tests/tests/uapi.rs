//! Our copies of the kernel's constants against the system's headers, by its C compiler.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use quote::ToTokens as _;
use syn::{Expr, Item};

/// Constants of Linux 6.9 and 6.16, which the headers of most systems do not name yet.
const NEWER: [&str; 3] = ["NFT_TABLE_F_PERSIST", "NFTA_SET_TYPE", "NFTA_SET_COUNT"];

/// The expression without the separators of digits.
fn c_expression(expr: &Expr) -> String {
    expr.to_token_stream().to_string().replace('_', "")
}

#[test]
fn every_constant_equals_the_headers() {
    let source = include_str!("../../ephport-nft/src/uapi.rs");
    let file = syn::parse_file(source).expect("Rust");
    let constant = |item| match item {
        Item::Const(item) => Some((item.ident.to_string(), c_expression(&item.expr))),
        _ => None,
    };
    let names: Vec<_> = file.items.into_iter().filter_map(constant).collect();
    assert!(names.len() > 100, "{}", names.len());
    let mut program = String::from(
        "#include <netinet/in.h>\n#include <sys/socket.h>\n#include <linux/capability.h>\n#include <linux/netlink.h>\n#include <linux/sockios.h>\n#include <linux/rtnetlink.h>\n\
         #include <linux/if_arp.h>\n#include <linux/if_link.h>\n#include <linux/nexthop.h>\n#include <linux/veth.h>\n\
         #include <linux/netfilter.h>\n#include <linux/netfilter_ipv4.h>\n\
         #include <linux/netfilter/nfnetlink.h>\n#include <linux/netfilter/nf_tables.h>\n\
         #include <linux/netfilter/nf_nat.h>\n\
         #include <linux/netfilter/nfnetlink_conntrack.h>\n\
         #include <linux/netfilter/nf_conntrack_tcp.h>\n#include <linux/netfilter/nf_conntrack_sctp.h>\n#include <linux/inet_diag.h>\n#include <linux/netfilter/nfnetlink_cttimeout.h>\n\
         #include <linux/netfilter/nf_tables_compat.h>\n#include <linux/netfilter/xt_CT.h>\n#include <linux/netfilter/xt_tcpudp.h>\n#include <linux/netfilter/xt_multiport.h>\n#include <linux/genetlink.h>\n#include <linux/wireguard.h>\n#include <linux/icmp.h>\n#include <linux/icmpv6.h>\n#include <linux/sock_diag.h>\n#include <linux/xfrm.h>\n#include <netinet/tcp.h>\n",
    );
    for (name, value) in names.iter().filter(|(name, _)| !NEWER.contains(&name.as_str())) {
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
