"""minidl export: a trained network, written to another file."""

from pathlib import Path

from .. import io


def export(source: str, out: str, sparse: bool) -> None:
    """Read a network and write it again, in the format that the new name ends in."""
    model = io.load(source)
    if sparse and Path(out).suffix != ".safetensors":
        raise ValueError(f"{out}: weights without their zeros are kept in .safetensors files")
    before = sum(a.nbytes for a in model.state_dict().values())
    if sparse:
        io.save_csr(model, out)
    else:
        io.save(model, out)
    print(f"{out}: {Path(out).stat().st_size:,} bytes, for weights of {before:,}")
