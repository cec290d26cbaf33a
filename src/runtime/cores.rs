//! Which worker runs on which core.

/// Chooses a core for each of `workers`: those of `asked` in order when the user named some, else those that this process
/// may use, leaving the first one to interrupts and everything else as long as there are enough.
///
/// With fewer cores than workers they are dealt out in turn; the second value is then a warning.
pub fn choose_cores(
    workers: usize,
    asked: Option<&[usize]>,
    usable: &[usize],
) -> (Vec<Option<usize>>, Option<String>) {
    let cores: Vec<usize> = match asked {
        Some(cores) => cores.to_vec(),
        None if usable.len() > workers => usable[1..].to_vec(),
        None => usable.to_vec(),
    };
    if cores.is_empty() {
        return (
            vec![None; workers],
            Some("cannot tell which cores there are: workers are not pinned".to_owned()),
        );
    }
    let warning = (cores.len() < workers).then(|| {
        format!(
            "{workers} workers share {} core{}: they take turns, and a busy one keeps the others from their packets; use \
             fewer queues, or `idle = \"poll\"`",
            cores.len(),
            if cores.len() == 1 { "" } else { "s" }
        )
    });
    (cores.iter().copied().map(Some).cycle().take(workers).collect(), warning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_core_is_left_alone_when_there_are_enough() {
        assert_eq!(choose_cores(2, None, &[0, 1, 2, 3]), (vec![Some(1), Some(2)], None));
        assert_eq!(choose_cores(2, None, &[0, 1]), (vec![Some(0), Some(1)], None));
    }

    #[test]
    fn fewer_cores_than_workers_are_shared_with_a_warning() {
        let (cores, warning) = choose_cores(4, None, &[0, 1]);
        assert_eq!(cores, [Some(0), Some(1), Some(0), Some(1)]);
        assert!(warning.unwrap().starts_with("4 workers share 2 cores"));
    }

    #[test]
    fn cores_that_were_asked_for_are_taken_in_order() {
        assert_eq!(choose_cores(2, Some(&[3, 1]), &[0, 1, 2, 3]).0, [Some(3), Some(1)]);
    }
}
