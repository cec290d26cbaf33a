//! From a zone file (RFC 1035, section 5) to everything that can be answered out of it.

use std::collections::{BTreeSet, HashMap};
use std::error::Error;
use std::io::Read;

use domain::base::iana::{Class, OptRcode, Rtype};
use domain::base::rdata::ComposeRecordData;
use domain::base::{Name, ToName, Ttl};
use domain::rdata::ZoneRecordData;
use domain::zonefile::inplace::{Entry, ScannedRecord, Zonefile};

/// The name in the question, as a compression pointer: it begins behind the header of 12 bytes.
const ASKED_NAME: [u8; 2] = [0xc0, 12];
/// Aliases that are followed one after another.
const ALIASES: usize = 8;
/// The type of no record.
const NO_TYPE: Rtype = Rtype::from_int(0);

type Owned = Name<Vec<u8>>;

/// What stands behind a question.
pub struct Answer {
    pub rcode: OptRcode,
    /// Records in the answer section.
    pub answers: u16,
    /// Records in the authority section.
    pub authorities: u16,
    /// All of them.
    pub records: Vec<u8>,
}

/// Every answer. It does not change.
pub struct Zone {
    apex: Owned,
    /// For each name, an answer for each type that the zone has, and the one for all others.
    names: HashMap<Owned, (Vec<(Rtype, Answer)>, Answer)>,
    no_such_name: Answer,
    refused: Answer,
    not_implemented: Answer,
}

impl Zone {
    /// Reads the file and prepares the answers. A zone that would be answered wrongly is refused.
    pub fn load(file: &mut impl Read) -> Result<Self, Box<dyn Error>> {
        let mut entries = Zonefile::load(file)?;
        entries.set_default_class(Class::IN);
        let Some(Entry::Record(soa)) = entries.next_entry()?.filter(is_soa) else {
            return Err("the first record of a zone is its SOA".into());
        };
        let apex: Owned = soa.owner().to_vec();
        let mut records = Records { by_name: HashMap::from([(apex.clone(), vec![soa.clone()])]), apex, soa };
        while let Some(entry) = entries.next_entry()? {
            let Entry::Record(record) = entry else { return Err("$INCLUDE is not followed".into()) };
            records.add(record)?;
        }
        let types: BTreeSet<Rtype> = records.by_name.values().flatten().map(ScannedRecord::rtype).collect();
        let mut names = HashMap::new();
        for name in records.by_name.keys() {
            let answers = types.iter().map(|rtype| Ok((*rtype, records.answer(name, *rtype)?)));
            let answers = answers.collect::<Result<_, Box<dyn Error>>>()?;
            names.insert(name.clone(), (answers, records.answer(name, NO_TYPE)?));
        }
        let mut no_such_name = Answer::new(OptRcode::NXDOMAIN);
        records.add_soa(&mut no_such_name)?;
        let [refused, not_implemented] = [OptRcode::REFUSED, OptRcode::NOTIMP].map(Answer::new);
        Ok(Self { apex: records.apex, names, no_such_name, refused, not_implemented })
    }

    /// What the zone says about a name. Of all types (`ANY`) it says one (RFC 8482, section 4.1). Upper and lower case are the same.
    pub fn find(&self, name: &Name<[u8]>, rtype: Rtype, class: Class) -> &Answer {
        if class != Class::IN || !name.ends_with(&self.apex) {
            return &self.refused;
        }
        // Zone transfers, and what else is no type of a record (RFC 6895, section 3.1).
        if rtype != Rtype::ANY && (128..256).contains(&rtype.to_int()) {
            return &self.not_implemented;
        }
        let Some((answers, other)) = self.names.get(name) else { return &self.no_such_name };
        let is_asked =
            |(known, answer): &&(Rtype, Answer)| *known == rtype || rtype == Rtype::ANY && answer.answers > 0;
        answers.iter().find(is_asked).map_or(other, |(_, answer)| answer)
    }
}

impl Answer {
    /// One without records.
    pub fn new(rcode: OptRcode) -> Self {
        Self { rcode, answers: 0, authorities: 0, records: Vec::new() }
    }

    fn push(&mut self, owner: &[u8], ttl: Ttl, record: &ScannedRecord) -> Result<(), Box<dyn Error>> {
        self.records.extend_from_slice(owner);
        self.records.extend(record.rtype().to_int().to_be_bytes());
        self.records.extend(Class::IN.to_int().to_be_bytes());
        self.records.extend(ttl.as_secs().to_be_bytes());
        Ok(record.data().compose_len_rdata(&mut self.records)?)
    }
}

/// The zone as it is in the file. A name that only has names below it exists, without records (RFC 8020).
struct Records {
    by_name: HashMap<Owned, Vec<ScannedRecord>>,
    apex: Owned,
    soa: ScannedRecord,
}

impl Records {
    fn add(&mut self, record: ScannedRecord) -> Result<(), Box<dyn Error>> {
        let (owner, rtype) = (record.owner().to_vec(), record.rtype());
        if !owner.ends_with(&self.apex) || record.class() != Class::IN {
            return Err(format!("{owner} {rtype} is not of the zone {}", self.apex).into());
        }
        let is_delegation = rtype == Rtype::NS && owner != self.apex;
        if is_delegation || rtype == Rtype::DNAME || owner.first().is_wildcard() {
            return Err(format!("{owner} {rtype}: delegations and wildcards are not served").into());
        }
        for name in owner.iter_suffixes().take_while(|name| name.ends_with(&self.apex)) {
            self.by_name.entry(name.to_vec()).or_default();
        }
        self.by_name.entry(owner).or_default().push(record);
        Ok(())
    }

    /// The answer about a name and a type. An alias is answered with what it stands for, as far as that is in the zone (RFC 1034,
    /// section 4.3.2).
    fn answer(&self, name: &Owned, rtype: Rtype) -> Result<Answer, Box<dyn Error>> {
        let mut answer = Answer::new(OptRcode::NOERROR);
        let (mut name, mut owner) = (name.clone(), ASKED_NAME.to_vec());
        for _ in 0..ALIASES {
            let here = self.by_name.get(&name);
            let of = |rtype| here.into_iter().flatten().filter(move |record| record.rtype() == rtype);
            let is_alias = rtype != Rtype::CNAME && of(Rtype::CNAME).next().is_some();
            let found = if is_alias { Rtype::CNAME } else { rtype };
            for record in of(found) {
                answer.push(&owner, record.ttl(), record)?;
                answer.answers += 1;
            }
            if let Some(ZoneRecordData::Cname(alias)) =
                of(found).next().map(ScannedRecord::data).filter(|_| is_alias)
            {
                name = alias.cname().to_vec();
                owner = name.as_slice().to_vec();
                continue;
            }
            if of(found).next().is_none() && name.ends_with(&self.apex) {
                answer.rcode = if here.is_none() { OptRcode::NXDOMAIN } else { OptRcode::NOERROR };
                self.add_soa(&mut answer)?;
            }
            break;
        }
        Ok(answer)
    }

    /// Says with the SOA record that there is nothing, and for how long that may be remembered (RFC 2308, section 3).
    fn add_soa(&self, answer: &mut Answer) -> Result<(), Box<dyn Error>> {
        let ZoneRecordData::Soa(soa) = self.soa.data() else { return Ok(()) };
        answer.push(self.apex.as_slice(), self.soa.ttl().min(soa.minimum()), &self.soa)?;
        answer.authorities += 1;
        Ok(())
    }
}

fn is_soa(entry: &Entry) -> bool {
    matches!(entry, Entry::Record(record) if record.rtype() == Rtype::SOA)
}
