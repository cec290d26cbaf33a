//! Which worker runs on which core.

use thiserror::Error;

/// A core was named that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("core {core} cannot be used: this process may use {}", listing(.usable))]
#[non_exhaustive]
pub struct NoSuchCore {
    /// The core that was asked for.
    pub core: usize,
    /// Those that this process may use.
    pub usable: Vec<usize>,
}

fn listing(cores: &[usize]) -> String {
    let numbers: Vec<String> = cores.iter().map(ToString::to_string).collect();
    format!("{} {}", if cores.len() == 1 { "core" } else { "cores" }, numbers.join(", "))
}

/// Chooses a core for each of `workers`: those of `asked` in order when the user named some, else those that this process
/// may use (`usable`), leaving the first one to interrupts and everything else as long as there are enough.
///
/// With fewer cores than workers they are dealt out in turn, and the second value is a warning; as it is when more
/// were named than there are workers.
///
/// # Errors
///
/// [`NoSuchCore`] when one was named that is not among `usable`.
pub fn choose_cores(
    workers: usize,
    asked: Option<&[usize]>,
    usable: &[usize],
) -> Result<(Vec<Option<usize>>, Option<String>), NoSuchCore> {
    let cores: Vec<usize> = match asked {
        Some(cores) => cores.to_vec(),
        None if usable.len() > workers => usable[1..].to_vec(),
        None => usable.to_vec(),
    };
    if cores.is_empty() {
        return Ok((
            vec![None; workers],
            Some("cannot tell which cores there are: workers are not pinned".to_owned()),
        ));
    }
    if !usable.is_empty()
        && let Some(core) = cores.iter().find(|core| !usable.contains(core))
    {
        return Err(NoSuchCore { core: *core, usable: usable.to_vec() });
    }
    let mut used = cores[..cores.len().min(workers)].to_vec();
    used.sort_unstable();
    used.dedup();
    let warning = if used.len() < workers {
        Some(format!(
            "{workers} workers share {} core{}: they take turns, and a busy one keeps the others from their packets; use \
             fewer queues, or `idle = \"poll\"`",
            used.len(),
            if used.len() == 1 { "" } else { "s" }
        ))
    } else {
        let spare = &cores[workers..];
        let (not_used, run_on) = (listing(spare), listing(&cores[..workers]));
        (asked.is_some() && !spare.is_empty())
            .then(|| format!("{not_used} left over: a worker runs for each queue, on {run_on}"))
    };
    Ok((cores.iter().copied().map(Some).cycle().take(workers).collect(), warning))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(
        workers: usize,
        asked: Option<&[usize]>,
        usable: &[usize],
    ) -> (Vec<Option<usize>>, Option<String>) {
        choose_cores(workers, asked, usable).unwrap()
    }

    #[test]
    fn the_first_core_is_left_alone_when_there_are_enough() {
        assert_eq!(choose(2, None, &[0, 1, 2, 3]), (vec![Some(1), Some(2)], None));
        assert_eq!(choose(2, None, &[0, 1]), (vec![Some(0), Some(1)], None));
    }

    #[test]
    fn fewer_cores_than_workers_are_shared_with_a_warning() {
        let (cores, warning) = choose(4, None, &[0, 1]);
        assert_eq!(cores, [Some(0), Some(1), Some(0), Some(1)]);
        assert!(warning.unwrap().starts_with("4 workers share 2 cores"));
    }

    #[test]
    fn a_core_named_twice_is_shared() {
        let (cores, warning) = choose(2, Some(&[1, 1]), &[0, 1]);
        assert_eq!(cores, [Some(1), Some(1)]);
        assert!(warning.unwrap().starts_with("2 workers share 1 core:"));
    }

    #[test]
    fn cores_that_were_asked_for_are_taken_in_order() {
        assert_eq!(choose(2, Some(&[3, 1]), &[0, 1, 2, 3]), (vec![Some(3), Some(1)], None));
    }

    #[test]
    fn cores_left_over_are_told() {
        let (cores, warning) = choose(1, Some(&[3, 1]), &[0, 1, 2, 3]);
        assert_eq!(cores, [Some(3)]);
        assert_eq!(warning.unwrap(), "core 1 left over: a worker runs for each queue, on core 3");
    }

    #[test]
    fn a_core_that_is_not_there_is_refused() {
        let error = choose_cores(2, Some(&[0, 99]), &[0, 1]).unwrap_err();
        assert_eq!(error.to_string(), "core 99 cannot be used: this process may use cores 0, 1");
    }

    #[test]
    fn without_a_list_of_cores_those_named_are_tried() {
        assert_eq!(choose(1, Some(&[5]), &[]), (vec![Some(5)], None));
        assert_eq!(choose(2, None, &[]).0, [None, None]);
    }
}
