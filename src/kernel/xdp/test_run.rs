//! Running single packets through the program without an interface (`BPF_PROG_TEST_RUN`): for tests, and for
//! the question what would become of a packet.

use aya::{
    TestRun, TestRunOptions,
    maps::{Array, MapData},
};
use xfwd_ebpf_types::{Headers, MAX_ROOM};

use super::{PROGRAM_NAME, XdpError, XdpProgram};

const PARSE_PROGRAM: &str = "xfwd_parse";

#[cfg(doc)]
use super::SteeredService;

/// What an XDP program says is to be done with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum XdpAction {
    /// Dropped, as an error.
    Aborted,
    /// Dropped.
    Drop,
    /// On to the host network stack.
    Pass,
    /// Out by the interface it came from.
    Transmit,
    /// To an AF_XDP socket.
    Redirect,
    /// A number that Linux knows no action for.
    Unknown(u32),
}

impl From<u32> for XdpAction {
    fn from(number: u32) -> Self {
        match number {
            0 => Self::Aborted,
            1 => Self::Drop,
            2 => Self::Pass,
            3 => Self::Transmit,
            4 => Self::Redirect,
            other => Self::Unknown(other),
        }
    }
}

impl XdpProgram {
    /// What the program does with `packet`, an Ethernet frame without checksum, as if it came by queue 0. It
    /// is counted, but goes nowhere.
    ///
    /// # Errors
    ///
    /// [`XdpError::TestRun`] for fewer than 14 bytes, and for more than the kernel takes.
    pub fn test_run(&self, packet: &[u8]) -> Result<XdpAction, XdpError> {
        let program = self.program(PROGRAM_NAME)?;
        run(program, PROGRAM_NAME, packet, None).map(|(action, _)| action)
    }

    /// As [`test_run`](Self::test_run), with the bytes of the packet as the program leaves them: it may have made
    /// [room](SteeredService::room) in front.
    ///
    /// # Errors
    ///
    /// As [`test_run`](Self::test_run).
    pub fn test_run_for_bytes(&self, packet: &[u8]) -> Result<(XdpAction, Vec<u8>), XdpError> {
        let program = self.program(PROGRAM_NAME)?;
        let mut bytes = vec![0; packet.len() + usize::from(MAX_ROOM)];
        let (action, length) = run(program, PROGRAM_NAME, packet, Some(&mut bytes))?;
        bytes.truncate(length as usize);
        Ok((action, bytes))
    }

    /// What the parser of the XDP program finds in `packet`. The first call loads the program that tells.
    ///
    /// # Errors
    ///
    /// As [`test_run`](Self::test_run), and [`XdpError::Load`].
    pub fn parse(&mut self, packet: &[u8]) -> Result<Headers, XdpError> {
        run(self.load_program(PARSE_PROGRAM)?, PARSE_PROGRAM, packet, None)?;
        let parsed = self.object.map("PARSED").ok_or(XdpError::Object { name: "PARSED" })?;
        let parsed: Array<&MapData, Headers> =
            parsed.try_into().map_err(|source| XdpError::map("PARSED", "element 0".to_owned(), source))?;
        parsed.get(&0, 0).map_err(|source| XdpError::map("PARSED", "element 0".to_owned(), source))
    }
}

fn run(
    program: &aya::programs::Xdp,
    name: &'static str,
    packet: &[u8],
    data_out: Option<&mut [u8]>,
) -> Result<(XdpAction, u32), XdpError> {
    let options = TestRunOptions { data_in: Some(packet), data_out, ..TestRunOptions::default() };
    match program.test_run(options) {
        Ok(result) => Ok((result.return_value.into(), result.data_size_out)),
        Err(source) => Err(XdpError::TestRun { program: name, packet_bytes: packet.len(), source }),
    }
}
