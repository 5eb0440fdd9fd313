#!/bin/sh
# Starts JupyterLab from the built or the official image (quay.io/jupyter/pyspark-notebook).
set -eu
config=/etc/millrace/jupyter
home=/var/lib/millrace/jupyter

if [ -x /opt/jupyter/bin/jupyter ]; then
    PATH=/opt/jupyter/bin:$PATH
    PYSPARK_DRIVER_PYTHON=/opt/jupyter/bin/python
    export PYSPARK_DRIVER_PYTHON
else
    SPARK_HOME=/usr/local/spark
    export SPARK_HOME
    PYTHONPATH=$SPARK_HOME/python:$(echo $SPARK_HOME/python/lib/py4j-*-src.zip)
    # Executors get a Python of their own; where its version is another one, PySpark says so.
    PATH=/opt/conda/bin:$PATH
fi
# Packages that somebody installs from a notebook stay with the notebooks; they come last.
PYTHONPATH=$config/lib:${PYTHONPATH:+$PYTHONPATH:}$home/packages
PIP_TARGET=$home/packages
export PATH PYTHONPATH PIP_TARGET

# Everything but /tmp, where nothing may be executed: Spark's and Java's scratch files, too.
export HOME=$home TMPDIR=$home/tmp SPARK_LOCAL_DIRS=$home/tmp SHELL=/bin/bash
export JUPYTER_RUNTIME_DIR=/tmp/jupyter JUPYTER_CONFIG_DIR=$home/.jupyter JUPYTER_DATA_DIR=$home/.local/share/jupyter
export IPYTHONDIR=$home/.ipython MPLCONFIGDIR=$home/.cache/matplotlib
# What clients trust: the platform's CA, and for the outside, which notebooks may be allowed to reach, the bundle
# that was given or Debian's CAs.
cat "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" /run/millrace/tls/ca.crt >/tmp/ca.crt
export SSL_CERT_FILE=/tmp/ca.crt REQUESTS_CA_BUNDLE=/tmp/ca.crt CURL_CA_BUNDLE=/tmp/ca.crt AWS_CA_BUNDLE=/tmp/ca.crt
export NODE_EXTRA_CA_CERTS=/tmp/ca.crt

rm -rf $home/tmp
mkdir -p $home/notebooks $home/tmp
# Only a link is ours: whatever else somebody gave this name is theirs, and a link would go into their folder.
examples=$home/notebooks/examples
if [ -L $examples ]; then
    rm $examples
fi
if [ -d $config/examples ]; then
    if [ -e $examples ]; then
        echo "$examples is somebody's own and stays; rename it to see the examples in $config/examples" >&2
    else
        ln -s $config/examples $examples
    fi
fi
if [ -r /run/millrace/spark/conf/spark-defaults.conf ]; then
    export SPARK_CONF_DIR=/run/millrace/spark/conf
    sh $config/truststore.sh
fi
exec jupyter lab --config=$config/jupyter_server_config.py --no-browser
