//! The run of bytes may be cut anywhere, and hold anything.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn frame(command: Command, id: StreamId, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).expect("short");
    [&header(command, length, id)[..], data].concat()
}

proptest! {
    #[test]
    fn a_run_of_bytes_may_be_cut_anywhere(
        pieces in vec((prop_oneof![Just(3), Just(5)], vec(any::<u8>(), 0..300)), 0..20),
        cuts in vec(1..64_usize, 1..50),
    ) {
        let mut mux = Multiplexer::default();
        prop_assert_eq!((mux.open(), mux.open()), (Some(3), Some(5)));
        let mut run: Vec<u8> = pieces
            .iter()
            .flat_map(|(id, data)| frame(Command::Push, *id, data))
            .collect();
        run.extend(frame(Command::Fin, 5, &[]));
        let (mut run, mut cuts) = (Bytes::from(run), cuts.into_iter().cycle());
        while !run.is_empty() {
            let cut = cuts.next().unwrap_or(1).min(run.len());
            prop_assert_eq!(mux.handle_bytes(run.split_to(cut), Instant::now()), Ok(()));
        }
        for id in [3, 5] {
            let read: Vec<u8> = std::iter::from_fn(|| mux.read(id, 50)).flatten().collect();
            let said = pieces.iter().filter(|(to, _)| *to == id);
            prop_assert_eq!(read, said.flat_map(|(_, data)| data.clone()).collect::<Vec<_>>());
            let finished = mux.stream(id).map(Stream::remote_finished);
            prop_assert_eq!(finished, Some(id == 5));
        }
        prop_assert_eq!(mux.memory(), Memory::default());
    }

    #[test]
    fn memory_is_counted_while_it_is_kept(
        steps in vec((prop_oneof![Just(3), Just(5)], 0..6_u8, 1..70_000_usize), 0..60),
    ) {
        let mut mux = Multiplexer::default();
        prop_assert_eq!((mux.open(), mux.open()), (Some(3), Some(5)));
        for (id, what, bytes) in steps {
            match what {
                0 => drop(mux.write(id, &vec![7; bytes])),
                1 => drop(mux.poll_payload(bytes.max(64), Instant::now())),
                2 | 3 => {
                    let run = frame(Command::Push, id, &vec![7; bytes.min(65_535)]);
                    prop_assert_eq!(mux.handle_bytes(run.into(), Instant::now()), Ok(()));
                }
                _ => drop(mux.read(id, bytes)),
            }
            let mut sum = Memory::default();
            for (_, stream) in mux.streams() {
                sum += stream.memory();
                let pending = stream.pending().data_bytes;
                prop_assert!(stream.memory().outgoing >= pending);
                prop_assert!(stream.memory().outgoing <= 64 << 10);
                prop_assert_eq!(stream.memory().outgoing == 0, pending == 0);
                let unread = stream.incoming_bytes();
                prop_assert!(stream.memory().incoming >= unread);
                // Only what is read, and the last of what is not, have room that they do not use.
                prop_assert!(stream.memory().incoming <= unread + (26 << 10));
            }
            prop_assert_eq!(mux.memory(), sum);
        }
        for id in [3, 5] {
            while mux.read(id, usize::MAX).is_some() {}
            mux.discard(id);
        }
        while mux.poll_payload(1024, Instant::now()).is_some() {}
        prop_assert_eq!(mux.memory(), Memory::default());
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        frames in vec((any::<bool>(), 0..4_u8, 0..6_u32, vec(any::<u8>(), 0..40)), 0..20),
    ) {
        let mut mux = Multiplexer::default();
        prop_assert_eq!((mux.open(), mux.open()), (Some(3), Some(5)));
        for (plausible, command, id, data) in frames {
            let head = Header::decode([1, command, 9, 0, 0, 0, 0, 0]).map(|h| h.command);
            let bytes = match head {
                Ok(command) if plausible => frame(command, id, &data),
                Ok(_) | Err(_) => data,
            };
            let _ = mux.handle_bytes(bytes.into(), Instant::now());
        }
        let unread: usize = mux.streams().map(|(_, stream)| stream.incoming_bytes()).sum();
        prop_assert!(mux.memory().incoming >= unread);
    }
}
