"""Sharing: trained runs as folders and as repositories of the Hugging Face Hub.

A published run is a folder of these files, and nothing else in it is read:

    config.json                 what was trained, without the paths of the machine that did
    model.safetensors           the weights
    densities/NAME.safetensors  fitted densities; fitted_on.json says on which weights
    metrics.json                the scores of these weights, each with its protocol
    README.md, *.png            the model card and its pictures, which loading does not need

Loading reads JSON and safetensors only: no code, no pickle. The sizes in a configuration are compared with the tensors
in the file before memory for them is taken.
"""

from expost.sharing.loading import from_pretrained
from expost.sharing.publishing import save_pretrained

__all__ = ["from_pretrained", "save_pretrained"]
