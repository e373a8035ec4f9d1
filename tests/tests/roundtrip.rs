//! Random policies to the kernel and back: read by ephport, listed by nft, loaded from the listing.
//!
//! nft 1.0.6 has no words for a table of blocks that feeds `masq`, or port-only `nat`, from registers
//! (it lists the rule without its translation), and takes the wrong registers where such a table
//! names IPv6 addresses. Our listing says so, and that is all that is not loaded anew here.

use ephport_core::HostFacts;
use ephport_core::strategies::documents;
use ephport_nft::table::layout::{FAMILY, TABLE};
use ephport_nft::{Applied, Client, Installed, TableState, compile};
use ephport_tests::Host;
use ephport_tests::random::samples;
use ephport_tests::tool::tool;

const DOCUMENTS: usize = 150;

/// A host, and a handle on its tables that is opened once.
struct Kernel {
    host: Host,
    nft: Client,
}

impl Kernel {
    fn new(name: &str) -> Self {
        let host = Host::new(name).expect("a host");
        let nft = host.run(Client::open).expect("a handle");
        Self { host, nft }
    }

    /// What nft lists; without a word on standard error.
    fn listed(&self) -> String {
        let printed = tool(&self.host, "nft", &["list", "ruleset"], "");
        assert!(printed.success && printed.err.is_empty(), "{printed:?}");
        printed.out
    }

    /// Loads a text in place of all that is there.
    fn load(&mut self, text: &str) {
        self.nft.remove().expect("removed");
        let printed = tool(&self.host, "nft", &["-f", "-"], text);
        assert!(printed.success && printed.err.is_empty(), "{printed:?}\n{text}");
    }

    /// Whether the kernel holds this and nothing else in our table, still as it was signed.
    fn assert_holds(&mut self, ruleset: &TableState, how: &str) {
        match self.nft.installed().expect("read") {
            Installed::Ours { ruleset: found, fingerprint, intact } => {
                let listings = || format!("{}{}", ruleset.to_nft(), found.to_nft());
                assert!(found.normalized() == ruleset.normalized(), "{how}\n{}", listings());
                assert_eq!(fingerprint, ruleset.fingerprint(), "{how}");
                assert!(intact, "{how}\n{}", ruleset.to_nft());
            }
            other => panic!("{how}: {other:?}\n{}", ruleset.to_nft()),
        }
    }
}

/// Whether nft can say all of it.
fn has_words(ruleset: &TableState) -> bool {
    !ruleset.to_nft().to_string().contains("\t# ")
}

#[test]
fn a_hundred_and_fifty_documents_to_the_kernel_and_back() {
    let (mut host, mut copy, mut again) =
        (Kernel::new("host"), Kernel::new("copy"), Kernel::new("again"));
    let (mut said, mut unsaid) = (0, 0);
    for document in samples(&documents(), DOCUMENTS) {
        let Ok(policies) = document.resolve(&HostFacts::default()) else { continue };
        let ruleset = compile(&policies).expect("a program");
        let applied = host.nft.apply(&ruleset).expect("applied");
        assert_ne!(applied, Applied::Unchanged);
        host.assert_holds(&ruleset, "as it was sent");
        assert_eq!(host.nft.apply(&ruleset), Ok(Applied::Unchanged), "{}", ruleset.to_nft());
        if !has_words(&ruleset) {
            unsaid += 1;
            continue;
        }
        said += 1;
        copy.load(&ruleset.to_nft().to_string());
        copy.assert_holds(&ruleset, "as `show` lists it");
        again.load(&host.listed());
        again.assert_holds(&ruleset, "as nft lists it");
    }
    println!("{said} documents in nft's words, {unsaid} without");
    assert!(said > DOCUMENTS / 2 && unsaid > 0, "{said} and {unsaid}");
    host.nft.remove().expect("removed");
    let (left, _) = host.nft.read_table(FAMILY, TABLE).expect("read");
    assert_eq!(left, None);
}
