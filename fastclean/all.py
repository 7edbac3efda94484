"What a notebook imports: `from fastclean.all import *` brings fastclean and fastai's vision library."
from fastai.vision.all import *
from .atomic import *
from .core import *
from .tables import *
from .data import *
from .loaders import *
from .noise import *
from .inject import *
from .transition import *
from .features import load_backbone
from .rows import *
from .targets import *
from .foldtask import repeatable
from .kfold import KFoldLearner
from .featurefolds import FeatureFolds
from .learners import *
from .issues import *
from .find import *
from .oddities import *
from .datalab import to_datalab
from .health import *
from .multilabel import item_issues
from .corrections import read_corrections, write_corrections
from .correct import clean_frame, plan_corrections
from .clean import *
from .copies import correct_copy, read_manifest
from .undo import undo
from .interpret import *
from .plots import *
from .evidence import label_evidence, plot_evidence
from .interpretation import CleanlabInterpretation
from .report import *
from .review import Review
from .audit import audit, audit_result, confirm, read_audit, write_audit
from .auditpage import write_audit_page
from .cleaner import SuspectCleaner
from .losses import *
from .recipe import unfreezing_groups, unfreezing_stages
from .callback.core import train_items
from .callback.dynamics import *
from .callback.noise_layers import *
from .callback.joint import *
from .callback.elr import *
from .callback.weights import *
from .callback.checkpoint import Checkpoint
from .frozen import *
from .retrain import clean_and_retrain, clean_training_labels
from .methods import METHODS, robust_learner, train_robust
from .calibration import *
from .semisup.dividemix import *
from .semisup.instancegm import *
from .semisup.plots import plot_division, plot_semisup
