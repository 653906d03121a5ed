use super::*;
use proptest::prelude::*;

const RECIPE: [u8; 32] = [7; 32];

fn partition(kind: Kind, bytes: u64) -> Partition {
    Partition { kind, guid: guid(&RECIPE, Role::Partition(kind)), bytes }
}

fn layout() -> Layout {
    let partitions = [
        partition(Kind::Esp, 34 << 20),
        partition(Kind::Root, (100 << 20) + 4096),
        partition(Kind::RootVerity, 1_000_000),
    ];
    Layout::new(guid(&RECIPE, Role::Disk), &partitions).unwrap()
}

/// Changes bytes of the head and fixes the checksums, unless the change is to a checksum.
fn with(offset: usize, bytes: &[u8]) -> Result<Table, ReadError> {
    let layout = layout();
    let mut head = layout.head();
    put(&mut head, offset, bytes);
    if !(528..532).contains(&offset) {
        if !(600..604).contains(&offset) {
            let crc = crc32fast::hash(&head[1024..]);
            put(&mut head, 600, &crc.to_le_bytes());
        }
        let mut header = head[512..604].to_vec();
        header[16..20].fill(0);
        put(&mut head, 528, &crc32fast::hash(&header).to_le_bytes());
    }
    Table::read(&head, layout.bytes())
}

fn refused_field(offset: usize, bytes: &[u8]) -> (&'static str, u64) {
    match with(offset, bytes) {
        Err(ReadError::Field { field, offset, .. }) => (field, offset),
        other => panic!("{offset}: {other:?}"),
    }
}

#[test]
fn partitions_follow_each_other_from_whole_mebibytes() {
    let layout = layout();
    let places: Vec<(u64, u64)> = layout
        .partitions()
        .iter()
        .map(|placed| (placed.first.offset(), placed.last.0 - placed.first.0 + 1))
        .collect();
    assert_eq!(places, [(1 << 20, 69_632), (35 << 20, 204_808), (136 << 20, 1954)]);
    assert_eq!(layout.bytes(), 138 << 20);
    assert_eq!(layout.tail_offset(), (138 << 20) - 16_896);
    assert_eq!(layout.disk(), guid(&RECIPE, Role::Disk));
}

#[test]
fn both_tables_read_back_alike() {
    let layout = layout();
    let table = Table::read(&layout.head(), layout.bytes()).unwrap();
    assert_eq!(table, Table::read_backup(&layout.tail(), layout.bytes()).unwrap());
    assert_eq!(table.disk, layout.disk());
    let expected: Vec<Entry> = layout
        .partitions()
        .iter()
        .map(|placed| Entry {
            type_guid: placed.partition.kind.type_guid(),
            guid: placed.partition.guid,
            first: placed.first,
            last: placed.last,
            attributes: placed.partition.kind.attributes(),
            name: placed.partition.kind.name().into(),
        })
        .collect();
    assert_eq!(table.entries, expected);
    let kinds: Vec<_> = table.entries.iter().map(Entry::kind).collect();
    assert_eq!(kinds, [Some(Kind::Esp), Some(Kind::Root), Some(Kind::RootVerity)]);
    assert_eq!(table.entries[0].bytes(), 34 << 20);
}

#[test]
fn derived_guids_are_the_same_forever() {
    assert_eq!(guid(&[0; 32], Role::Disk).to_string(), "48cceafc-c3f4-5331-b192-6000189f3592");
    assert_eq!(
        guid(&[0; 32], Role::Partition(Kind::Root)).to_string(),
        "83d9ffbf-78bf-5c36-830c-83c3b1cabfed"
    );
    assert_eq!(format!("{:08x}", volume_id(&[0; 32])), "369d047e");
}

#[test]
fn every_role_and_recipe_has_its_own_guid() {
    let roles =
        Kind::ALL.map(Role::Partition).into_iter().chain([Role::Disk, Role::Filesystem, Role::HashTree]);
    let guids: std::collections::BTreeSet<Uuid> =
        roles.flat_map(|role| [guid(&[0; 32], role), guid(&RECIPE, role)]).collect();
    assert_eq!(guids.len(), 12);
    assert!(guids.iter().all(|guid| guid.get_version_num() == 5));
}

#[test]
fn an_empty_table_is_two_mebibytes() {
    let layout = Layout::new(guid(&RECIPE, Role::Disk), &[]).unwrap();
    assert_eq!(layout.bytes(), 2 << 20);
    assert!(Table::read(&layout.head(), layout.bytes()).unwrap().entries.is_empty());
}

#[test]
fn partitions_that_cannot_be_placed_are_refused() {
    let disk = guid(&RECIPE, Role::Disk);
    let esp = partition(Kind::Esp, 1);
    let refusal = |partitions: &[Partition]| Layout::new(disk, partitions).unwrap_err();
    assert_eq!(refusal(&[Partition { bytes: 0, ..esp }]), Error::Empty { kind: Kind::Esp });
    for bytes in [u64::MAX, u64::MAX - (1 << 20), u64::MAX - (2 << 20)] {
        assert_eq!(refusal(&[Partition { bytes, ..esp }]), Error::TooLarge { kind: Kind::Esp }, "{bytes:x}");
    }
    assert_eq!(refusal(&[esp, esp]), Error::Guid { name: "esp", found: esp.guid });
    assert_eq!(refusal(&[Partition { guid: disk, ..esp }]), Error::Guid { name: "esp", found: disk });
    assert!(matches!(refusal(&[Partition { guid: Uuid::nil(), ..esp }]), Error::Guid { .. }));
    assert!(matches!(Layout::new(Uuid::nil(), &[]), Err(Error::Guid { name: "disk", .. })));
    let many: Vec<Partition> = (1..=129).map(|n| Partition { guid: Uuid::from_u128(n), ..esp }).collect();
    assert!(Layout::new(disk, &many[..128]).is_ok());
    assert_eq!(refusal(&many), Error::Count { found: 129 });
}

#[test]
fn a_disk_beyond_two_tebibytes_has_the_largest_protective_entry() {
    let layout = Layout::new(guid(&RECIPE, Role::Disk), &[partition(Kind::Root, 3 << 40)]).unwrap();
    let head = layout.head();
    assert_eq!(head[458..462], [0xff; 4]);
    assert_eq!(Table::read(&head, layout.bytes()).unwrap().entries[0].bytes(), 3 << 40);
}

#[test]
fn truncated_tables_are_refused() {
    let layout = layout();
    for length in [0, 511, 512, 603, HEAD - 1] {
        let error = Table::read(&layout.head()[..length], layout.bytes()).unwrap_err();
        assert_eq!(error, ReadError::Truncated { what: "head", expected: HEAD as u64, found: length as u64 });
    }
    let error = Table::read_backup(&layout.tail()[..TAIL - 1], layout.bytes()).unwrap_err();
    assert!(matches!(error, ReadError::Truncated { what: "tail", .. }));
    let error = Table::read(&layout.head(), 34_303).unwrap_err();
    assert_eq!(error, ReadError::Truncated { what: "disk", expected: 34_816, found: 34_303 });
    assert!(matches!(Table::read(&layout.head(), layout.bytes() + 1), Err(ReadError::Field { .. })));
}

#[test]
fn a_disk_of_another_size_is_refused() {
    let layout = layout();
    for bytes in [layout.bytes() - 512, layout.bytes() + 512] {
        let error = Table::read(&layout.head(), bytes).unwrap_err();
        assert!(
            matches!(error, ReadError::Field { field: "other header's block", offset: 544, .. }),
            "{error}"
        );
    }
}

#[test]
fn every_field_with_a_wrong_value_is_refused_with_its_offset() {
    let last_usable = layout().bytes() / 512 - 34;
    let wrong: &[(usize, &[u8], &str)] = &[
        (510, &[0, 0], "MBR signature"),
        (450, &[0x83], "MBR partition type"),
        (454, &[2], "MBR first block"),
        (512, b"EFI PARX", "signature"),
        (520, &[1], "revision"),
        (524, &0xffff_ffffu32.to_le_bytes(), "header size"),
        (528, &[0, 0, 0, 0], "header CRC"),
        (532, &[1], "reserved field"),
        (536, &[2], "own block"),
        (544, &[0; 8], "other header's block"),
        (552, &[33], "first usable block"),
        (560, &(last_usable + 1).to_le_bytes(), "last usable block"),
        (560, &33u64.to_le_bytes(), "last usable block"),
        (560, &u64::MAX.to_le_bytes(), "last usable block"),
        (584, &u64::MAX.to_le_bytes(), "entries' block"),
        (592, &u32::MAX.to_le_bytes(), "number of entries"),
        (596, &u32::MAX.to_le_bytes(), "size of an entry"),
        (596, &[0; 4], "size of an entry"),
        (600, &[0; 4], "entries' CRC"),
    ];
    for (offset, bytes, field) in wrong {
        assert_eq!(refused_field(*offset, bytes), (*field, *offset as u64));
    }
}

#[test]
fn entries_that_contradict_the_disk_are_refused() {
    let second = 1024 + 128;
    let first_guid = guid(&RECIPE, Role::Partition(Kind::Esp)).to_bytes_le();
    let disk_guid = guid(&RECIPE, Role::Disk).to_bytes_le();
    let wrong: &[(usize, &[u8], &str)] = &[
        (32, &33u64.to_le_bytes(), "first block"),
        (32, &u64::MAX.to_le_bytes(), "first block"),
        (40, &u64::MAX.to_le_bytes(), "last block"),
        (40, &0u64.to_le_bytes(), "last block"),
        (32, &2048u64.to_le_bytes(), "partition"),
        (16, &first_guid, "partition GUID"),
        (16, &disk_guid, "partition GUID"),
        (16, &[0; 16], "partition GUID"),
        (56, &[0x00, 0xd8], "name"),
        (56 + 70, &[1], "name"),
    ];
    for (offset, bytes, field) in wrong {
        let (found, at) = refused_field(second + offset, bytes);
        let expected = if *field == "name" { 56 } else { *offset };
        assert_eq!((found, at), (*field, (second + expected) as u64));
    }
}

#[test]
fn a_backup_that_is_damaged_is_refused_with_its_place_on_the_disk() {
    let layout = layout();
    let mut tail = layout.tail();
    tail[3] ^= 1;
    let error = Table::read_backup(&tail, layout.bytes()).unwrap_err();
    let offset = layout.bytes() - 512 + 88;
    assert!(
        matches!(error, ReadError::Field { field: "entries' CRC", offset: found, .. } if found == offset)
    );
    let mut tail = layout.tail();
    tail[ENTRIES_SIZE + 24] ^= 1;
    assert!(matches!(
        Table::read_backup(&tail, layout.bytes()),
        Err(ReadError::Field { field: "header CRC", .. })
    ));
}

proptest! {
    #[test]
    fn any_sizes_give_tables_that_read_back(sizes in proptest::collection::vec(1u64..1 << 42, 0..20)) {
        let partitions: Vec<Partition> = sizes
            .iter()
            .enumerate()
            .map(|(index, bytes)| Partition { kind: Kind::ALL[index % 3], guid: Uuid::from_u128(index as u128 + 1), bytes: *bytes })
            .collect();
        let layout = Layout::new(guid(&RECIPE, Role::Disk), &partitions).unwrap();
        let table = Table::read(&layout.head(), layout.bytes()).unwrap();
        prop_assert_eq!(&table, &Table::read_backup(&layout.tail(), layout.bytes()).unwrap());
        for (entry, bytes) in table.entries.iter().zip(&sizes) {
            prop_assert_eq!(entry.bytes(), bytes.next_multiple_of(512));
            prop_assert_eq!(entry.first.offset() % ALIGNMENT, 0);
        }
    }

    #[test]
    fn a_changed_byte_of_the_table_is_refused(at in 512usize..HEAD, flip in 1u8..=255) {
        let layout = layout();
        let mut head = layout.head();
        head[at] ^= flip;
        let covered = !(512 + HEADER..1024).contains(&at);
        prop_assert_eq!(Table::read(&head, layout.bytes()).is_err(), covered);
    }
}
