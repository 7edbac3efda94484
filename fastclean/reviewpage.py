"What Streamlit runs; `fastclean review` starts it."
import sys

from fastclean.app import show_review

if __name__ == '__main__': show_review(*sys.argv[1:3])
