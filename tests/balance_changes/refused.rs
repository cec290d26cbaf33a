//! Configs that cannot be gone on by.

use xfwd_netns::lab_or_skip;

use crate::{
    ask,
    site::{ECHO, Family, Line, Site, Way, refused, reload, start_where, up},
    traffic::{Background, assert_unbroken, hold},
};

#[test]
fn a_config_that_is_wrong_leaves_everything_as_it_is() {
    lab_or_skip!();
    let site = Site::new(Way::Dsr, Family::V4, 3);
    let lines = [up(0), up(1)];
    let good = site.config(&lines, "");
    let xfwd = site.start(&good);
    let background = Background::start(&site);
    let held = hold(&site.client, site.at(ECHO), 20);

    let file = xfwd.config().display().to_string();
    let address = site.addresses[1];
    let with = |lines: &[Line]| site.config(lines, "");
    let nothing = |index| Line { weight: 0, ..up(index) };
    // Where it says that a text is.
    let at = |config: &str, text: &str| {
        let before = &config[..config.find(text).unwrap()];
        let column = before.len() - before.rfind('\n').map_or(0, |end| end + 1) + 1;
        format!("{file}:{}:{column}\n", before.matches('\n').count() + 1)
    };
    let word = good.replacen("weight = 1", "weight = \"many\"", 1);
    let unknown = good.replacen("port = 80", "speed = 3\nport = 80", 1);
    let no_toml = good.replacen("forward = \"dsr\"", "forward = dsr", 1);
    let cases = [
        // (config, what is said of it)
        (word.clone(), vec![at(&word, "\"many\""), "weight".to_owned()]),
        (no_toml.clone(), vec![at(&no_toml, "dsr\n")]),
        (unknown.clone(), vec![at(&unknown, "speed"), "speed".to_owned()]),
        (with(&[nothing(0), nothing(1)]), vec![format!("{file}:"), "tcp80".to_owned()]),
        (
            good.replace(&address.to_string(), "203.0.113.9"),
            vec!["203.0.113.9".to_owned(), "tcp80".to_owned()],
        ),
        (
            format!("{good}[dataplane]\nsteer = \"all\"\n"),
            vec!["`[dataplane]`".to_owned(), "restart".to_owned()],
        ),
        (format!("{good}[balance]\nudp_timeout = \"1m\"\n"), vec!["`[balance]`".to_owned()]),
        (String::new(), Vec::new()),
    ];
    for (config, expected) in cases {
        let said = refused(&xfwd, &config);
        println!("{said}");
        assert!(expected.iter().all(|text| said.contains(text)), "{expected:?}\n{said}\nfor\n{config}");
        assert!(said.contains("error"), "{said}");
        let answered = ask::many(&site.client, site.at(ECHO), 40);
        answered.assert_shares(&[(0, 1), (1, 1)], "after a refused config");
    }
    // One that is right is taken after all that.
    reload(&xfwd, &with(&[up(0), up(2)]));
    ask::many(&site.client, site.at(ECHO), 60).assert_shares(&[(0, 1), (2, 1)], "after a good one");

    assert_unbroken(held, "held over wrong configs");
    println!("{} background requests answered", background.stop());
    xfwd.stop();
}

#[test]
fn checks_that_cannot_be_made_leave_everything_as_it_is() {
    lab_or_skip!();
    let site = Site::new(Way::Nat, Family::V4, 2);
    // Nothing to verify a certificate by.
    let untrusting = [("SSL_CERT_FILE", "/dev/null"), ("SSL_CERT_DIR", "/dev/null")];
    let xfwd = start_where(&site.balancer, &site.config(&[up(0)], ""), &untrusting);
    let check = "[service.health]\ntype = \"tls\"\nverify = true";
    let said = refused(&xfwd, &site.config(&[up(0), up(1)], check));
    println!("{said}");
    assert!(said.contains("certificate"), "{said}");
    ask::many(&site.client, site.at(ECHO), 30).assert_shares(&[(0, 1)], "after a refused config");
    reload(&xfwd, &site.config(&[up(0), up(1)], ""));
    ask::many(&site.client, site.at(ECHO), 30).assert_shares(&[(0, 1), (1, 1)], "after a good one");
    xfwd.stop();
}
