"""All kinds of files that are read."""

from collections.abc import Callable

from fuzzing import (
    checkpoint_kinds,
    data_kinds,
    export_kinds,
    picture_kinds,
    published_kinds,
    run_kinds,
    table_kinds,
)
from fuzzing.kinds import Kind
from fuzzing.seeds import Seeds

KINDS: tuple[Callable[[Seeds], Kind], ...] = (
    run_kinds.run_file,
    run_kinds.override,
    run_kinds.settings,
    run_kinds.profile,
    run_kinds.resumed,
    run_kinds.network_record,
    run_kinds.ties,
    run_kinds.history,
    run_kinds.measured,
    run_kinds.speed,
    run_kinds.log,
    run_kinds.exported,
    checkpoint_kinds.checkpoint,
    run_kinds.plugin,
    table_kinds.table,
    table_kinds.blocks_csv,
    table_kinds.children_csv,
    table_kinds.kernels,
    table_kinds.ofa_yaml,
    table_kinds.result_of_kit,
    table_kinds.perf_output,
    table_kinds.plan,
    table_kinds.resumed_kit,
    data_kinds.data_file,
    data_kinds.class_list,
    data_kinds.shard,
    data_kinds.kept_index,
    data_kinds.answer,
    picture_kinds.png_image,
    picture_kinds.jpeg_image,
    picture_kinds.webp_image,
    picture_kinds.tiff_image,
    export_kinds.manifest,
    export_kinds.child,
    export_kinds.labels,
    export_kinds.stored_images,
    export_kinds.stored_outputs,
    export_kinds.known_images,
    export_kinds.seen_images,
    published_kinds.published,
    published_kinds.published_long_ago,
)
"""Each makes a kind of the specimens."""
