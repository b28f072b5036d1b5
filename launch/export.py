"""A checkpoint for other programs: python launch/export.py CHECKPOINT --onnx FILE --safetensors FILE"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from alexnet2012 import evaluation
from alexnet2012.core.atomic_files import write_output
from alexnet2012.core.command_line import Parser, checkpoint_file, main, output_file, refuse_overwriting
from alexnet2012.core.errors import InputError
from alexnet2012.core.messages import say


def flags() -> Parser:
    parser = Parser("Write a checkpoint's net for other programs, or take grouped weights into a checkpoint.")
    add = parser.add_argument
    add("checkpoint", type=checkpoint_file, metavar="CHECKPOINT")
    add("--onnx", type=output_file, metavar="FILE", help="one graph, both towers, checked with onnxruntime")
    add("--safetensors", type=output_file, metavar="FILE", help="the whole net under its own names")
    add("--grouped", action="store_true", help="in --safetensors, both towers as grouped convolutions")
    add("--weights-of", type=Path, metavar="FILE", help="grouped weights (safetensors) to take into --checkpoint")
    add(
        "--checkpoint", type=output_file, dest="out", metavar="FILE", help="CHECKPOINT with the weights of --weights-of"
    )
    add("--lrn-may-cross", action="store_true", help="take weights of a net whose LRN may cross the towers, as Caffe's")
    return parser


def arguments() -> Namespace:
    """The flags, as far as they can be checked without files."""
    given = flags().parse_args()
    if given.grouped and not given.safetensors:
        raise InputError("--grouped: needs --safetensors FILE")
    if not (given.onnx or given.safetensors or given.weights_of):
        raise InputError("nothing to write; give --onnx, --safetensors, or --weights-of and --checkpoint")
    if bool(given.weights_of) != bool(given.out):
        raise InputError("--weights-of and --checkpoint: each needs the other")
    inputs = [given.checkpoint] + [given.weights_of] * bool(given.weights_of)
    refuse_overwriting((given.onnx, given.safetensors, given.out), inputs)
    return given


def run(given: Namespace) -> None:
    export, net = evaluation.export, evaluation.model.load_checkpoint(given.checkpoint, "cpu")
    if given.safetensors:
        with write_output(given.safetensors) as file:
            (export.save_grouped if given.grouped else export.save_safetensors)(net, file)
        say(f"{given.safetensors}: {'grouped convolutions, LRN within each group' if given.grouped else 'the net'}")
    if given.onnx:
        with write_output(given.onnx) as file:
            difference = export.save_onnx(net, file)
        say(f"{given.onnx}: logits within {difference:.1e} of the net's in onnxruntime")
    if given.weights_of:
        saved = evaluation.checkpoint.load(given.checkpoint)
        with write_output(given.out) as file:
            export.save_with_weights_of(saved, given.weights_of, file, given.lrn_may_cross)
        say(f"{given.out}: the net of {given.checkpoint} with the weights of {given.weights_of}, for evaluation")


if __name__ == "__main__":
    main(arguments, run)
