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
        prop_assert_eq!(mux.unread_bytes, 0);
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
        prop_assert_eq!(mux.unread_bytes, unread);
    }
}
