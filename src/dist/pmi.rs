//! How MPICH's ranks find one another without its own starter: rank 0 answers their questions.
//!
//! MPICH asks whoever started it for its rank, the number of ranks, and a small table in which each
//! rank leaves its network address for the others; it does so over a TCP connection to `PMI_PORT`,
//! in lines `cmd=…` (the "simple" PMI-1 wire protocol of MPICH's documentation). [`Table`] is the
//! other end. No sum goes through here.

use std::collections::HashMap;
use std::io::{self, BufRead, Write};
use std::sync::{Barrier, Mutex, PoisonError};

/// Longest name of a table, key and value, in bytes.
const LIMITS: &str = "kvsname_max=256 keylen_max=64 vallen_max=1024";
/// Name of the only table.
const NAME: &str = "ranks";

/// What the ranks of one run know of one another.
pub struct Table {
    world: usize,
    values: Mutex<HashMap<String, String>>,
    all_here: Barrier,
}

impl Table {
    /// An empty table for `world` ranks.
    pub fn new(world: usize) -> Self {
        Self {
            world,
            values: Mutex::default(),
            all_here: Barrier::new(world),
        }
    }

    /// Whether a connection that begins with `line` asks for this.
    pub fn is_asked(line: &str) -> bool {
        line.starts_with("cmd=")
    }

    /// Answers one rank until it has finished; `line` is its first.
    ///
    /// # Errors
    /// The connection breaks.
    pub fn serve(
        &self,
        mut line: String,
        mut from: impl BufRead,
        mut to: impl Write,
    ) -> io::Result<()> {
        while !line.is_empty() {
            let answer = self.answer(line.trim());
            to.write_all(answer.as_bytes())?;
            to.flush()?;
            if answer.starts_with("cmd=finalize_ack") {
                return Ok(());
            }
            line.clear();
            from.read_line(&mut line)?;
        }
        Ok(())
    }

    fn answer(&self, line: &str) -> String {
        let field = |key: &str| {
            let words = line.split(' ').filter_map(|word| word.split_once('='));
            words.into_iter().find(|(name, _)| *name == key)
        };
        let text = |key: &str| field(key).map_or("", |(_, value)| value);
        let values = || self.values.lock().unwrap_or_else(PoisonError::into_inner);
        let world = self.world;
        match text("cmd") {
            "initack" => {
                let rank = text("pmiid");
                format!("cmd=initack\ncmd=set size={world}\ncmd=set rank={rank}\ncmd=set debug=0\n")
            }
            "init" => "cmd=response_to_init pmi_version=1 pmi_subversion=1 rc=0\n".to_owned(),
            "get_maxes" => format!("cmd=maxes {LIMITS}\n"),
            "get_universe_size" => format!("cmd=universe_size size={world}\n"),
            "get_appnum" => "cmd=appnum appnum=0\n".to_owned(),
            "get_my_kvsname" => format!("cmd=my_kvsname kvsname={NAME}\n"),
            "barrier_in" => {
                self.all_here.wait();
                "cmd=barrier_out\n".to_owned()
            }
            "put" => {
                values().insert(text("key").to_owned(), text("value").to_owned());
                "cmd=put_result rc=0 msg=success\n".to_owned()
            }
            "get" => match values().get(text("key")) {
                Some(value) => format!("cmd=get_result rc=0 msg=success value={value}\n"),
                None => "cmd=get_result rc=-1 msg=key_not_found value=unknown\n".to_owned(),
            },
            "finalize" => "cmd=finalize_ack\n".to_owned(),
            other => format!("cmd={other}_result rc=-1 msg=not_supported\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_rank_learns_its_place_and_what_others_left() {
        let table = Table::new(1);
        let ask = |lines: &str| {
            let mut said = Vec::new();
            let (first, rest) = lines.split_once('\n').unwrap();
            table
                .serve(first.to_owned(), rest.as_bytes(), &mut said)
                .unwrap();
            String::from_utf8(said).unwrap()
        };
        let said = ask(
            "cmd=initack pmiid=0\ncmd=put kvsname=ranks key=a value=b\ncmd=barrier_in\n\
                        cmd=get kvsname=ranks key=a\ncmd=get kvsname=ranks key=c\ncmd=spawn\n",
        );
        assert!(said.contains("cmd=set size=1\ncmd=set rank=0\n"), "{said}");
        assert!(said.contains("barrier_out"), "{said}");
        assert!(
            said.contains("msg=success value=b\n") && said.contains("key_not_found"),
            "{said}"
        );
        assert!(
            said.ends_with("cmd=spawn_result rc=-1 msg=not_supported\n"),
            "{said}"
        );
        assert_eq!(ask("cmd=finalize\ncmd=init\n"), "cmd=finalize_ack\n");
        assert!(Table::is_asked("cmd=initack pmiid=0") && !Table::is_asked("{}"));
    }
}
