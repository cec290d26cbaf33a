//! Rules as a line of text.

use std::fmt::{self, Display, Formatter};
use std::ops::RangeInclusive;

use super::{FragmentKind, Match, Per, Rate, RateLimit, Rule};

/// TCP flags from the highest bit on.
const TCP_FLAGS: [&str; 8] = ["cwr", "ece", "urg", "ack", "psh", "rst", "syn", "fin"];
/// Elements of a list that are shown.
const SHOWN: usize = 4;

impl Display for Rule {
    /// `NAME: ACTION CONDITIONS`, on one line.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.action)?;
        if let Some(rate) = &self.rate {
            write!(f, " above {rate}")?;
        }
        if self.matches == Match::default() && self.not.is_none() {
            return f.write_str(" everything");
        }
        write!(f, "{}", self.matches)?;
        if let Some(not) = &self.not {
            write!(f, " not ({} )", not)?;
        }
        Ok(())
    }
}

impl Display for Match {
    /// A space and the condition, for each of them.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        list(f, "src", self.src.iter())?;
        list(f, "dst", self.dst.iter())?;
        for (key, set) in [("src_set", &self.src_set), ("dst_set", &self.dst_set)] {
            if let Some(set) = set {
                write!(f, " {key} {} ({} prefixes)", set.file().display(), set.len())?;
            }
        }
        list(f, "protocol", self.protocol.iter())?;
        list(f, "src_port", self.src_port.iter().map(Range))?;
        list(f, "dst_port", self.dst_port.iter().map(Range))?;
        list(
            f,
            "vlan",
            self.vlan
                .iter()
                .map(|range| if *range == (0..=0) { "none".to_owned() } else { Range(range).to_string() }),
        )?;
        if let Some(flags) = self.tcp_flags {
            let names = |bits: u8| {
                let set = (0..8).filter(move |bit| bits & (0x80 >> bit) != 0);
                set.map(|bit| TCP_FLAGS[bit])
            };
            list(f, "tcp_flags", names(flags.set))?;
            list(f, "no tcp_flags", names(flags.clear))?;
        }
        list(f, "icmp_type", self.icmp_type.iter().map(Range))?;
        list(f, "icmp_code", self.icmp_code.iter().map(Range))?;
        list(f, "length", self.length.iter().map(Range))?;
        match self.fragment {
            Some(FragmentKind::No) => f.write_str(" fragment false")?,
            Some(FragmentKind::Any) => f.write_str(" fragment true")?,
            Some(kind) => write!(f, " fragment {kind}")?,
            None => {}
        }
        list(f, "ip_options", self.ip_options.iter())?;
        list(f, "malformed", self.malformed.iter())
    }
}

impl Display for Rate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.limit {
            RateLimit::PacketsPerSecond(packets) => {
                write!(f, "{packets} packets/s (burst {}", self.burst)?;
            }
            RateLimit::BitsPerSecond(bits) => write!(f, "{bits} bit/s (burst {} bytes", self.burst)?,
        }
        match self.per {
            Per::Whole => f.write_str(")"),
            Per::Src { ipv4, ipv6 } => write!(f, ", per source /{ipv4} or IPv6 /{ipv6})"),
            Per::Flow => f.write_str(", per flow)"),
        }
    }
}

struct Range<'r, T>(&'r RangeInclusive<T>);

impl<T: Display + PartialEq> Display for Range<'_, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0.start() == self.0.end() {
            write!(f, "{}", self.0.start())
        } else {
            write!(f, "{}-{}", self.0.start(), self.0.end())
        }
    }
}

/// ` key a,b,c`; nothing for an empty list.
fn list<T: Display>(f: &mut Formatter<'_>, key: &str, items: impl Iterator<Item = T>) -> fmt::Result {
    let mut count = 0;
    for item in items {
        match count {
            0 => write!(f, " {key} {item}")?,
            1..SHOWN => write!(f, ",{item}")?,
            _ => {}
        }
        count += 1;
    }
    if count > SHOWN { write!(f, ",… ({count})") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::super::{Action, TcpFlags};
    use super::*;

    #[test]
    fn a_rule_on_a_line() {
        let mut rule = Rule::new("all", Action::Count);
        assert_eq!(rule.to_string(), "all: count everything");
        rule.action = Action::Drop;
        rule.matches.src = ["10.0.0.0/8", "2001:db8::/32"].map(|text| text.parse().unwrap()).to_vec();
        rule.matches.vlan = vec![0..=0, 7..=9];
        rule.matches.dst_port = vec![1..=1, 3..=3, 5..=6, 8..=8, 10..=10];
        rule.matches.tcp_flags = Some(TcpFlags { set: 0x02, clear: 0x11 });
        rule.not = Some(Match { fragment: Some(FragmentKind::Any), ..Match::default() });
        rule.rate = Some(Rate {
            limit: RateLimit::PacketsPerSecond(100),
            burst: 10,
            per: Per::Src { ipv4: 24, ipv6: 64 },
        });
        assert_eq!(
            rule.to_string(),
            "all: drop above 100 packets/s (burst 10, per source /24 or IPv6 /64) src 10.0.0.0/8,2001:db8::/32 \
             dst_port 1,3,5-6,8,… (5) vlan none,7-9 tcp_flags syn no tcp_flags ack,fin not ( fragment true )"
        );
    }
}
