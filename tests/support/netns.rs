//! A server of its own network, by a cable that can be pulled. Needs root and iproute2.

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::claim::{Claim, claim};
use crate::skip::skip;

/// A network namespace and the pair of veths that leads there.
#[derive(Debug)]
pub struct Netns {
    name: String,
    veth: String,
    near: Ipv4Addr,
    far: Ipv4Addr,
    _claim: Claim,
}

const HINT: &str = "run as root, with iproute2 installed";

/// True, with a line on stderr, if network namespaces are not available and no variable requires them. The calling test
/// ends then.
pub fn are_missing() -> bool {
    let have =
        rustix::process::geteuid().is_root() && Command::new("ip").arg("-V").output().is_ok();
    if have {
        return false;
    }
    skip("namespaces", HINT, "DEVCLUSTER_REQUIRE_NETNS");
    true
}

fn ip(args: &str) {
    let output = Command::new("ip").args(args.split(' ')).output();
    let output = output.expect("no ip; hint: apt-get install iproute2");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "ip {args}: {said}");
}

impl Netns {
    pub fn claim() -> Netns {
        let free = (0..=255).find_map(|n| Some((n, claim("netns", n.into())?)));
        let (number, claim) = free.expect("256 networks are in use");
        let netns = Netns {
            name: format!("dcs-{number}"),
            veth: format!("dcs{number}"),
            near: Ipv4Addr::new(10, 213, number, 1),
            far: Ipv4Addr::new(10, 213, number, 2),
            _claim: claim,
        };
        // What a killed test left.
        netns.remove();
        let Netns {
            name,
            veth,
            near,
            far,
            ..
        } = &netns;
        ip(&format!("netns add {name}"));
        ip(&format!(
            "link add {veth} type veth peer name eth0 netns {name}"
        ));
        ip(&format!("addr add {near}/24 dev {veth}"));
        ip(&format!("-n {name} addr add {far}/24 dev eth0"));
        ip(&format!("-n {name} link set lo up"));
        ip(&format!("-n {name} link set eth0 up"));
        ip(&format!("link set {veth} up"));
        netns
    }

    /// The server's address.
    pub fn far(&self) -> Ipv4Addr {
        self.far
    }

    /// This machine's address there.
    pub fn near(&self) -> Ipv4Addr {
        self.near
    }

    /// An unused address of the same network.
    pub fn unused_address(&self) -> Ipv4Addr {
        let [a, b, c, _] = self.far.octets();
        Ipv4Addr::new(a, b, c, 77)
    }

    /// A command to run over there.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// A program that runs this one over there.
    pub fn wrapper(&self, program: &Path, dir: &Path) -> PathBuf {
        let path = dir.join("in-netns");
        let (name, program) = (&self.name, program.display());
        let script = format!("#!/bin/sh\nexec ip netns exec {name} {program} \"$@\"\n");
        std::fs::write(&path, script).expect("cannot write the wrapper");
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&path, mode).expect("cannot chmod the wrapper");
        path
    }

    /// Pulls the cable at our end, where the kernel tells of it, and puts it back.
    pub fn pull(&self) {
        ip(&format!("link set {} down", self.veth));
    }

    pub fn plug(&self) {
        ip(&format!("link set {} up", self.veth));
    }

    /// Drops everything that comes back from the server, without any error here.
    pub fn silence(&self) {
        ip(&format!(
            "-n {} route add blackhole {}/32",
            self.name, self.near
        ));
    }

    pub fn unsilence(&self) {
        ip(&format!(
            "-n {} route del blackhole {}/32",
            self.name, self.near
        ));
    }

    /// A firewall in front of the server that drops what leaves this port of it.
    pub fn close_port(&self, port: u16) {
        let name = &self.name;
        ip(&format!(
            "-n {name} rule add pref 10 ipproto tcp sport {port} blackhole"
        ));
    }

    /// This machine returns with another address: what the server sends to the old one no longer arrives.
    pub fn move_elsewhere(&self) {
        let mut elsewhere = self.near.octets();
        elsewhere[3] = 78;
        let (near, veth) = (self.near, &self.veth);
        ip(&format!("addr del {near}/24 dev {veth}"));
        ip(&format!(
            "addr add {}/24 dev {veth}",
            Ipv4Addr::from(elsewhere)
        ));
    }

    fn remove(&self) {
        for args in [["link", "del", &self.veth], ["netns", "del", &self.name]] {
            // What cannot be removed stays.
            drop(Command::new("ip").args(args).output());
        }
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        self.remove();
    }
}
